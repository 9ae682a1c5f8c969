# Cityscapes, mmseg's recipe (120k steps of 12 images), with this package's crops and EMA.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/ddrnet23_slim.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

max_epochs = 484

train_dataloader = dict(batch_size=6)
