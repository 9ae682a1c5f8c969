# Cityscapes, mmseg's recipe (80k steps of 48 images), with this package's crops and an average of weights.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/stdc1.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

crop_size = (512, 1024)
max_epochs = 1291

train_dataloader = dict(batch_size=12)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=16 / 1291, by_epoch=True, convert_to_iter_based=True),
    dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=16 / 1291, end=None, by_epoch=True, convert_to_iter_based=True),
]
