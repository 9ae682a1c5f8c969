# DEIM-D-FINE-S on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 64, none after 120.
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
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=(4 / 131, 64 / 131))),
            dict(type="MultiScale", base=None, base_repeat=20, window=(0.0, 120 / 131)),
        ]
    ),
    neck=dict(expansion=0.5, depth=1),
    head=dict(
        selection=dict(act="silu"),
        decoder=dict(num_layers=3, ffn=dict(act="silu"), act="silu"),
        criterion=dict(class_term=dict(type="MatchabilityTerm", gamma=1.5)),
    ),
)
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.plain}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=2e-4, weight_decay=0.0),
            r"^backbone\.": dict(lr=2e-4),
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
        begin=64 / 132,
        end=120 / 132,
        T_max=None,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=4 / 132, switch_pipeline={{_base_.dense}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=64 / 132, switch_pipeline={{_base_.augmented}}),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=120 / 132, switch_pipeline={{_base_.plain}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
    dict(type="RestartFromBest", epoch=120 / 132),
]
