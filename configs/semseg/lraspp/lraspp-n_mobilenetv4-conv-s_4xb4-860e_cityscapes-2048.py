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
param_scheduler = dict(decay=dict(eta_min=1e-4))
