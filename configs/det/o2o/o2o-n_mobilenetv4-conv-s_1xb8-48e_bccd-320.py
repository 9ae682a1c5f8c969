# Blood cells (BCCD, 3 classes, 205 training images), from scratch: images of 640 x 480 stretched to 320 x 320.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/bccd/"
classes = ("RBC", "WBC", "Platelets")
image_size = (320, 320)
max_epochs = 48

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects"),
    dict(type="RandomWarp", size=None, mode="stretch", scale=(0.8, 1.25), translate=0.1),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    # Cells have no fixed orientation: flip in both directions.
    dict(type="FlipObjects", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackObjects"),
]
test_pipeline = [dict(type="LoadImage"), dict(type="FitImage", size=None, mode="stretch"), dict(type="PackObjects")]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(val_interval=12)
