# DEIM-D-FINE-X on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 29, none after 50.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/datasets/detr_pipelines.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 58
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=(4 / 57, 29 / 57))),
            dict(type="MultiScale", base=None, base_repeat=3, window=(0.0, 50 / 57)),
        ]
    ),
    backbone=dict(variant="b5"),
    neck=dict(channels=384, ffn_channels=2048),
    head=dict(
        selection=dict(act="silu"),
        decoder=dict(reg_scale=8.0, ffn=dict(act="silu"), act="silu"),
        criterion=dict(class_term=dict(type="MatchabilityTerm", gamma=1.5)),
    ),
)
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.plain}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=1.25e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=5e-6, weight_decay=0.0),
            r"^backbone\.": dict(lr=5e-6),
            r"norm": dict(weight_decay=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="mmdet.QuadraticWarmupLR", by_epoch=False, begin=0, end=2000),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.5,
        by_epoch=True,
        begin=29 / 58,
        end=50 / 58,
        T_max=None,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=4 / 58, switch_pipeline={{_base_.dense}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=29 / 58, switch_pipeline={{_base_.augmented}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=50 / 58, switch_pipeline={{_base_.plain}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
    dict(type="RestartFromBest", epoch=50 / 58),
]
