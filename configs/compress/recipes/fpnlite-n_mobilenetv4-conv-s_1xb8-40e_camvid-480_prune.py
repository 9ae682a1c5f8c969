# Street scenes (CamVid), FPNLite-N: pruned to 70 % of its FLOPs, and fine-tuned. See README.md.
_base_ = "../../semseg/fpnlite/fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(
            name="prune",
            model_transforms=[dict(type="Prune", flops=0.7, importance="taylor")],
            max_epochs=20,
            optim_wrapper=dict(optimizer=dict(muon_lr=0.02, lr=5e-4)),
        ),
    ],
    benchmark=dict(threads=1),
)
