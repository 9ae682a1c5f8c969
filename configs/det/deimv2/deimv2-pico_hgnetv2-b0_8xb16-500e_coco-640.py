# DEIMv2-Pico on COCO at 640 px, as published (arXiv 2509.20787).
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/deimv2_lite.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/datasets/detr_pipelines.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 500
schedule = dict(
    warmup_iters=4000,
    dense_from=4 / 500,
    flat_until=250 / 500,
    no_aug_from=400 / 500,
    late_from=450 / 500,  # another matching cost
    decay_until=468 / 500,
)
image_size = (640, 640)
model = dict(
    neck=dict(channels=112),
    head=dict(
        channels=112,
        selection=dict(num_queries=200),
        decoder=dict(ffn=dict(hidden=320), position_widths=(112, 112)),
        criterion=dict(matcher=dict(late_from="late_from")),
    ),
)

load = [dict(type="LoadImage"), dict(type="LoadObjects")]
visible = dict(type="FilterObjects", min_side=8)
finish = [dict(type="FlipObjects", prob=0.5), {{_base_.stretch}}, visible, dict(type="PackObjects")]
plain = [*load, *finish]
augmented = [*load, dict(type="RandomChoice", transforms=[{{_base_.zoom_and_crop}}]), visible, *finish]
mixed = dict(type="RandomChoice", transforms=[{{_base_.mosaic}}, {{_base_.zoom_and_crop}}], prob=[0.5, 0.5])
dense = [*load, mixed, visible, *finish]

train_dataloader = dict(batch_size=16, num_workers=4, dataset=dict(pipeline=plain))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1.6e-3))
param_scheduler = dict(
    warmup=dict(type="mmdet.QuadraticWarmupLR"),
    decay=dict(eta_min_ratio=0.5, end="decay_until"),
)
default_hooks = dict(
    ema=dict(momentum=0.0001, gamma=1000),
    dense=dict(type="mmdet.PipelineSwitchHook", switch_epoch="dense_from", switch_pipeline=dense),
    augmented=dict(type="mmdet.PipelineSwitchHook", switch_epoch="flat_until", switch_pipeline=augmented),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline=plain),
    restart=dict(type="RestartFromBest", epoch="decay_until"),
)
