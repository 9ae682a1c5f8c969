# Training of D-FINE (arXiv 2410.13842) on COCO: a constant learning rate, the last epochs without augmentation and
# from the best checkpoint.
_base_ = [
    "../default_runtime.py",
    "../datasets/coco_detection.py",
    "../datasets/detr_pipelines.py",
    "../schedules/adamw_queries.py",
]

param_scheduler = dict(warmup=dict(start_factor=0.001))
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.augmented}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
default_hooks = dict(
    ema=dict(momentum=0.0001, gamma=1000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain}}),
    restart=dict(type="RestartFromBest", epoch="no_aug_from"),
)
