# Glue tubes (2 keypoints, 185 training objects), from scratch: crops of 256 x 192.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/simcc.py",
    "../../_base_/datasets/coco_topdown.py",
    "../../_base_/schedules/adamw_cosine.py",
]

data_root = "data/glue_tubes/"
classes = ("glue tube",)
keypoints = dict(names=("head", "tail"), sigmas=0.05, skeleton=[(0, 1)])
max_epochs = 60

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
# Tubes have no fixed orientation, and their boxes are tight: rotate all crops by up to 180 degrees.
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="CropBox", size=None, shift=0.1, scale=(0.75, 1.25), degrees=180.0, turned=1.0),
    dict(type="MirrorCrop", prob=0.5),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="PackTopDown"),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
