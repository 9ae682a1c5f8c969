# Cityscapes, crops of 1024 x 512.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/lraspp.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

crop_size = (512, 1024)
max_epochs = 860

train_dataloader = dict(batch_size=4)
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=None, by_epoch=True, convert_to_iter_based=True),
]
