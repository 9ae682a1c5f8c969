# Blood cells (BCCD), o2o-n: pruned, taught by the dense model, quantized. See README.md.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(
            name="prune",
            model_transforms=[
                dict(type="Prune", flops=0.35, importance="taylor", scheme="global", round_to=16, recalibrate=16)
            ],
        ),
        dict(
            name="distil",
            max_epochs=24,
            optim_wrapper=dict(optimizer=dict(muon_lr=0.02, lr=5e-4)),
            teacher_weights="step:dense",
            model=dict(
                guide=dict(
                    type="Distillation",
                    teacher="o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320",
                    terms=dict(
                        maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0)),
                        one_to_many=dict(type="OneToManyTerm"),
                    ),
                )
            ),
        ),
        dict(
            name="int8",
            export=[
                dict(precision="int8", input="uint8"),
                dict(backend="openvino", precision="int8", input="uint8"),
            ],
        ),
    ],
    benchmark=dict(threads=1),
)
