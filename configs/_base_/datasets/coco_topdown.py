# Any data set with COCO keypoints, one crop per object; files as in coco_detection.py. Names and skeleton of the
# keypoints are read from the annotations; `keypoints` may state `sigmas` (one or several) and `flip_pairs`.
_base_ = ["./coco_detection.py"]

image_size = (256, 192)  # (height, width) of the crops
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="CropBox", size=None, shift=0.1, scale=(0.6, 1.4), degrees=60.0),
    dict(type="MirrorCrop", prob=0.5),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="PackTopDown"),
]
test_pipeline = [dict(type="LoadImage"), dict(type="CropBox", size=None), dict(type="PackTopDown")]

train_dataloader = dict(batch_size=32, dataset=dict(type="CocoTopDown", pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(type="CocoTopDown", pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(kinds=("keypoints",))
test_evaluator = val_evaluator
