# DEIMv2-Pico on your own data: pruned to 70 % of its FLOPs, and fine-tuned. See README.md.
_base_ = "../../det/deimv2/deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(
            name="prune",
            model_transforms=[dict(type="Prune", flops=0.7, importance="taylor")],
            max_epochs=30,
            optim_wrapper=dict(optimizer=dict(lr=2e-4)),
        ),
    ],
    benchmark=dict(threads=1),
)
