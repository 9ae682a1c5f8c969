# The built-in shapes (`efftasks dataset shapes --out data/shapes`), from scratch: boxes, masks, keypoints and a
# semantic label map from one network.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_all.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/shapes/"
classes = ("circle", "square", "triangle", "star", "ring", "cross")
semantic_classes = ("background", *classes)
keypoints = dict(names=("head", "right", "tail", "left"), sigmas=0.05, skeleton=[(0, 2), (1, 3)])
image_size = (128, 128)
max_epochs = 36
# Path of the label map of an image, from the folder and stem of its file name.
seg_map = "cityscapes/gtFine/{folder}/shapes/shapes_{stem}_000019_gtFine_labelTrainIds.png"

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", masks=True, keypoints=True),
    dict(type="LoadSegMap"),
    dict(type="RandomWarp", size=None, scale=(0.7, 1.4)),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="FlipObjects", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackObjects"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="FitImage", size=None),
    dict(type="LoadSegMap"),
    dict(type="PackObjects"),
]
model = dict(semantic_stride=1)  # images are small: a label for every pixel
train_dataloader = dict(dataset=dict(seg_map=seg_map, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(seg_map=seg_map, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="CocoMetric", ann_file=None, kinds=("bbox", "segm", "keypoints")),
    dict(type="SemanticIoU"),
]
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(muon_lr=0.16, lr=3e-3))  # high learning rates for few steps
train_cfg = dict(val_interval=6)
