# Street scenes (CamVid, 11 classes, 367 images to train on), from scratch: 480 x 360 frames in an input of 480 x 384.
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
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
