# COCO at 640 px, size n. Not fully trained: see the README of this folder.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 300
schedule = dict(no_aug_from=285 / 300)
default_hooks = dict(
    ema=dict(gamma=2000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
