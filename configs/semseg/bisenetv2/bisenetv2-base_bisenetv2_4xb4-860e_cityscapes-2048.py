# Cityscapes, mmseg's recipe (160k steps of 16 images), with this package's crops and an average of weights.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/bisenetv2.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

max_epochs = 860

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=5 / 860, by_epoch=True, convert_to_iter_based=True),
    dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=5 / 860, end=None, by_epoch=True, convert_to_iter_based=True),
]
