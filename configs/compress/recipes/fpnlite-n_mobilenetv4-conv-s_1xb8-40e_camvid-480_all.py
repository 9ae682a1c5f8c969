# Street scenes (CamVid), FPNLite-N: pruned, taught by the dense model, quantized. See README.md.
_base_ = "../../semseg/fpnlite/fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(name="prune", model_transforms=[dict(type="Prune", flops=0.7, importance="taylor", recalibrate=16)]),
        dict(
            name="distil",
            max_epochs=20,
            optim_wrapper=dict(optimizer=dict(muon_lr=0.02, lr=5e-4)),
            teacher_weights="step:dense",
            model=dict(
                guide=dict(
                    type="Distillation",
                    teacher="fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480",
                    terms=dict(
                        logits=dict(
                            type="LogitTerm", student="raw", loss=dict(type="CWDLoss", weight=3.0, temperature=4.0)
                        ),
                    ),
                )
            ),
        ),
        dict(name="int8", export=[dict(precision="int8"), dict(backend="openvino", precision="int8")]),
    ],
    benchmark=dict(threads=1),
)
