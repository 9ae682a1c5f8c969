# The built-in shapes (`efftasks dataset shapes --out data/shapes`), from scratch: `efftasks quickstart --task semseg`.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/fpnlite.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/shapes/cityscapes/"
classes = ("background", "circle", "square", "triangle", "star", "ring", "cross")
image_size = (128, 128)
max_epochs = 12

# In so few epochs flips are enough.
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadSegMap"),
    dict(type="FitImage", size=None),
    dict(type="mmcv.RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="mmseg.PackSegInputs", meta_keys={{_base_.meta_keys}}),
]
train_prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
val_prefix = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
train_dataloader = dict(batch_size=16, dataset=dict(data_prefix=train_prefix, pipeline=train_pipeline))
val_dataloader = dict(batch_size=16, dataset=dict(data_prefix=val_prefix))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(muon_lr=0.16, lr=3e-3))  # high learning rates for few steps
train_cfg = dict(val_interval=4)
