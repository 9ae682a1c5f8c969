# Cityscapes, mmseg's recipe (80k steps of 48 images), with this package's crops and EMA.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/stdc1.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

crop_size = (512, 1024)
max_epochs = 1291
schedule = dict(warmup_epochs=16 / 1291)

train_dataloader = dict(batch_size=12)
param_scheduler = dict(decay=dict(eta_min=1e-4))
