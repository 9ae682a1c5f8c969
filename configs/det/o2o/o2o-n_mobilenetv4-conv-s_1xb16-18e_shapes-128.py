# The built-in shapes (`efftasks dataset shapes --out data/shapes`), from scratch: what `efftasks quickstart` trains.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/shapes/"
classes = ("circle", "square", "triangle", "star", "ring", "cross")
image_size = (128, 128)
max_epochs = 18

# Shapes have no fixed orientation. In so few epochs rotations and flips are enough: with random scales and colors, 11
# epochs gave an AP of 0.49 instead of 0.63.
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects"),
    dict(type="RandomWarp", size=None, scale=(1.0, 1.0), translate=0.0, quarter_turns=True),
    dict(type="FlipObjects", prob=0.5),
    dict(type="PackObjects"),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# High learning rates for only 900 steps (AP 0.30 after 600 steps with a muon_lr of 0.02, 0.55 with 0.16).
optim_wrapper = dict(optimizer=dict(muon_lr=0.16, lr=3e-3))
train_cfg = dict(val_interval=6)
