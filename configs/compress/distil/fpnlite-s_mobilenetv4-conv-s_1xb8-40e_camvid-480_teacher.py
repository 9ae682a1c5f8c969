# The teacher of FPNLite-N on street scenes (CamVid): size s, trained alone.
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

scale = dict(phi=4, gamma=1.0)
