# DEIMv2-N on COCO at 640 px, as published (arXiv 2509.20787).
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/deimv2.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/datasets/detr_pipelines.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 160
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(
                type="DenseBatchAugment",
                mixup=dict(prob=0.5, window=(4 / 159, 78 / 159)),
                copyblend=dict(prob=0.4, window=(4 / 159, 78 / 159)),
            ),
        ]
    ),
    head=dict(criterion=dict(matcher=dict(late_from=136 / 159))),
)
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.plain}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
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
param_scheduler = [dict(type="mmdet.QuadraticWarmupLR", by_epoch=False, begin=0, end=2000)]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=4 / 160, switch_pipeline={{_base_.dense}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=78 / 160, switch_pipeline={{_base_.augmented}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=148 / 160, switch_pipeline={{_base_.plain}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
    dict(type="RestartFromBest", epoch=148 / 160),
]
