# Blood cells (BCCD, 3 classes, 205 images to train on), from scratch: 640 x 480 photographs stretched to 320 x 320.
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

fit = dict(type="FitImage", size=None, mode="stretch")
affine = dict(
    type="mmdet.RandomAffine",
    scaling_ratio_range=(0.8, 1.25),
    max_translate_ratio=0.1,
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    border_val=(114, 114, 114),
)
# Cells have no upside: flip both ways.
flip = dict(type="mmdet.RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"])
pack = dict(type="mmdet.PackDetInputs", meta_keys={{_base_.meta_keys}})
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    fit,
    affine,
    dict(type="mmdet.YOLOXHSVRandomAug"),
    flip,
    pack,
]
test_pipeline = [dict(type="LoadImage"), fit, pack]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(val_interval=12)
