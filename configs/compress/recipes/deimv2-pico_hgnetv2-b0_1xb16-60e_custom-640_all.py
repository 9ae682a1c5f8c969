# DEIMv2-Pico on your own data: pruned, taught by the dense model, quantized. See README.md.
_base_ = "../../det/deimv2/deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(name="prune", model_transforms=[dict(type="Prune", flops=0.7, importance="taylor", recalibrate=16)]),
        dict(
            name="distil",
            max_epochs=30,
            optim_wrapper=dict(optimizer=dict(lr=2e-4)),
            teacher_weights="step:dense",
            model=dict(
                guide=dict(
                    type="Distillation",
                    teacher="deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune",
                    terms=dict(
                        maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0)),
                        queries=dict(type="SharedQueryTerm", num_queries=100),
                    ),
                )
            ),
        ),
        dict(name="int8", export=[dict(precision="int8"), dict(backend="openvino", precision="int8")]),
    ],
    benchmark=dict(threads=1),
)
