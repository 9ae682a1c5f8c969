# Any data set with COCO keypoints: coco_detection.py with keypoints, also of some objects. Their names and skeleton are
# read from the categories.
_base_ = ["./coco_detection.py"]

load = [dict(type="LoadImage"), dict(type="LoadObjects", keypoints=True)]
finish = [{{_base_.warp}}, {{_base_.color}}, {{_base_.flip}}, {{_base_.pack}}]
train_pipeline = [*load, dict(type="ObjectMosaic", size=None, prob=0.5), *finish]
plain_pipeline = [*load, *finish]  # for the last epochs: no mosaic

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(kinds=("bbox", "keypoints"))
test_evaluator = val_evaluator
