# COCO at 640 px, from ImageNet weights (`model.backbone.weights=FILE`) or from scratch. A starting point, not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 300
close_epoch = 280  # from here on no mosaic

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_dataloader = dict(num_workers=4)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=close_epoch, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=2000, update_buffers=True),
]
