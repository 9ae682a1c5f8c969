# DEIM-D-FINE-N on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 78, none after 148.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/datasets/detr_pipelines.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 160
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=(4 / 159, 78 / 159))),
        ]
    ),
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(
        channels=128,
        selection=dict(act="silu"),
        decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512, act="silu"), act="silu"),
        criterion=dict(class_term=dict(type="MatchabilityTerm", gamma=1.5)),
    ),
)
train_dataloader = dict(batch_size=16, num_workers=4, dataset=dict(pipeline={{_base_.plain}}))
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
