# Training of DEIM (arXiv 2412.04234) on COCO: first with dense augmentation, then with D-FINE's and a decaying learning
# rate, the last epochs without augmentation and from the best checkpoint.
_base_ = [
    "../default_runtime.py",
    "../datasets/coco_detection.py",
    "../datasets/detr_pipelines.py",
    "../schedules/adamw_queries.py",
]

schedule = dict(warmup_iters=2000, dense_from=None, flat_until=None, no_aug_from=None)
param_scheduler = dict(
    warmup=dict(type="mmdet.QuadraticWarmupLR"),
    decay=dict(eta_min_ratio=0.5),
)
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.plain}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
default_hooks = dict(
    ema=dict(momentum=0.0001, gamma=1000),
    dense=dict(type="mmdet.PipelineSwitchHook", switch_epoch="dense_from", switch_pipeline={{_base_.dense}}),
    augmented=dict(type="mmdet.PipelineSwitchHook", switch_epoch="flat_until", switch_pipeline={{_base_.augmented}}),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain}}),
    restart=dict(type="RestartFromBest", epoch="no_aug_from"),
)
