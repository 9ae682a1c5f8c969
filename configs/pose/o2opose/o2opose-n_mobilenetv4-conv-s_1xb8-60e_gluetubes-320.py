# Glue tubes (2 keypoints, 111 images to train on), from scratch: 960 x 540 photographs fitted into 320 x 320.
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
# Tubes lie any way round. They are turned by quarters: the hull of a box turned otherwise is too large for what is in it.
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", keypoints=True),
    dict(type="ObjectMosaic", size=None, prob=0.5),
    dict(type="RandomWarp", size=None, scale=(0.7, 1.5), rotate=5.0, quarter_turns=True),
    dict(type="mmdet.PhotoMetricDistortion", hue_delta=180),  # few grounds to learn from: their colour means nothing
    dict(type="FlipObjects", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackObjects"),
]
model = dict(head=dict(parts=dict(keypoints=dict(oks_weight=8.0))))  # keypoints are plain to see: exactness counts
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = val_dataloader
train_cfg = dict(val_interval=15)
