# Street scenes (CamVid), FPNLite-N taught by FPNLite-S: logits and feature maps, by channel.
# Give the teacher's checkpoint: --cfg-options teacher_weights=work_dirs/teacher/best.pth
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/fpnlite.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/camvid/"
image_size = (384, 480)
max_epochs = 40
train_dataloader = dict(batch_size=8, num_workers=1)

teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher="fpnlite-s_mobilenetv4-conv-s_1xb8-40e_camvid-480_teacher",
        terms=dict(
            logits=dict(type="LogitTerm", student="raw", loss=dict(type="CWDLoss", weight=3.0, temperature=4.0)),
            maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=2.0)),
        ),
    )
)
