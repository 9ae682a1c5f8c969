# COCO at 640 px: a starting point, not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/sparseinst.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 110

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_dataloader = dict(batch_size=8, num_workers=4)
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=100 / 110, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=500, update_buffers=True),
]
