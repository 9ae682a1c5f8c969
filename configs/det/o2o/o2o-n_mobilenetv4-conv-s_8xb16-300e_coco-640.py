# COCO at 640 px, size n. Not trained to the end here: see the README of this folder.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 300
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=285 / 300, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=2000, update_buffers=True),
]
