# Cityscapes, mmseg's recipe (160k steps of 16 images), with this package's crops and EMA.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/bisenetv2.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

max_epochs = 860
schedule = dict(warmup_epochs=5 / 860)

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(decay=dict(eta_min=1e-4))
