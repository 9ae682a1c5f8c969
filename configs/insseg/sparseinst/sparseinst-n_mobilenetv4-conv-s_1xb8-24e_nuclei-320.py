# Cell nuclei (241 training images), from scratch: images of 256 to 696 px letterboxed to 320 x 320.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/sparseinst.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/nuclei/"
classes = ("nucleus",)
image_size = (320, 320)
max_epochs = 24

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", masks=True),
    dict(type="RandomWarp", size=None, scale=(0.7, 1.5), rotate=30.0),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    # Nuclei have no fixed orientation.
    dict(type="FlipObjects", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackObjects"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = val_dataloader
train_cfg = dict(val_interval=12)
