# The built-in shapes (`efftasks dataset shapes --out data/shapes`), from scratch: what `quickstart --task insseg` trains.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/shapes/"
classes = ("circle", "square", "triangle", "star", "ring", "cross")
image_size = (128, 128)
max_epochs = 18

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", masks=True),
    # Shapes have no fixed orientation. In so few epochs rotations and flips are enough.
    dict(type="RandomWarp", size=None, scale=(1.0, 1.0), translate=0.0, quarter_turns=True),
    dict(type="FlipObjects", prob=0.5),
    dict(type="PackObjects"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(muon_lr=0.16, lr=3e-3))  # high learning rates for few steps
train_cfg = dict(val_interval=6)
