# Glue tubes, o2opose-n: pruned to 70 % of its FLOPs, and fine-tuned. See README.md.
_base_ = "../../pose/o2opose/o2opose-n_mobilenetv4-conv-s_1xb8-60e_gluetubes-320.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(
            name="prune",
            model_transforms=[dict(type="Prune", flops=0.7, importance="taylor")],
            max_epochs=30,
            optim_wrapper=dict(optimizer=dict(muon_lr=0.02, lr=5e-4)),
        ),
    ],
    benchmark=dict(threads=1),
)
