# Glue tubes (2 keypoints, 111 training images), from scratch: images of 960 x 540 letterboxed to 320 x 320.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_keypoints.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/glue_tubes/"
classes = ("glue tube",)
keypoints = dict(names=("head", "tail"), sigmas=0.05)
image_size = (320, 320)
max_epochs = 60

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
# Tubes have no fixed orientation. They are rotated by multiples of 90 degrees, under which boxes stay tight.
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", keypoints=True),
    dict(type="ObjectMosaic", size=None, prob=0.5),
    dict(type="RandomWarp", size=None, scale=(0.7, 1.5), rotate=5.0, quarter_turns=True),
    dict(type="mmdet.PhotoMetricDistortion", hue_delta=180),  # few backgrounds, whose color is irrelevant
    dict(type="FlipObjects", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackObjects"),
]
model = dict(head=dict(parts=dict(keypoints=dict(oks_weight=8.0))))  # clearly visible keypoints: precision matters
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = val_dataloader
train_cfg = dict(val_interval=15)
