# Cityscapes, mmseg's recipe (160k steps of 32 images), with this package's crops and EMA.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/fastscnn.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

crop_size = (512, 1024)
max_epochs = 1721

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.12, weight_decay=4e-5))
param_scheduler = dict(decay=dict(eta_min=1e-4))
