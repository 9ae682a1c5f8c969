# D-FINE-N with query masks on COCO at 640 px: rates and epochs of D-FINE-N (arXiv 2410.13842), masks as in Mask2Former
# (arXiv 2112.01527). The last 12 epochs without mosaic.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 160
train_dataloader = dict(batch_size=16, num_workers=4)
default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
optim_wrapper = dict(
    optimizer=dict(lr=8e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=4e-4, weight_decay=0.0),
            r"^backbone\.": dict(lr=4e-4),
            r"norm|bias": dict(weight_decay=0.0),
        }
    ),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=148 / 160, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
    dict(type="RestartFromBest", epoch=148 / 160),
]
