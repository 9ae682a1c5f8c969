# Cityscapes, whole images of 2048 x 1024; crops of 1024 x 1024.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/fpnlite.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 480

train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
