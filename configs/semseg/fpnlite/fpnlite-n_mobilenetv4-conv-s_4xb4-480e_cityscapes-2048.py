# Cityscapes: crops of 1024 x 1024, tested on full images of 2048 x 1024.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/fpnlite.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 480

train_dataloader = dict(batch_size=4)
