# D-FINE-S on COCO at 640 px, as published (arXiv 2410.13842): the last 12 epochs without augmentation.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/datasets/detr_pipelines.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 132
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="MultiScale", base=None, base_repeat=20, window=(0.0, 120 / 131)),
        ]
    ),
    neck=dict(expansion=0.5, depth=1),
    head=dict(decoder=dict(num_layers=3)),
)
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.augmented}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=1e-4, weight_decay=0.0),
            r"^backbone\.": dict(lr=1e-4),
            r"norm|bias": dict(weight_decay=0.0),
        }
    ),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=120 / 132, switch_pipeline={{_base_.plain}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
    dict(type="RestartFromBest", epoch=120 / 132),
]
