# Training of RT-DETRv2 (arXiv 2407.17140) on COCO: a constant learning rate, the last epochs without augmentation.
_base_ = [
    "../default_runtime.py",
    "../datasets/coco_detection.py",
    "../datasets/detr_pipelines.py",
    "../schedules/adamw_queries.py",
]

schedule = dict(warmup_iters=2000)
param_scheduler = dict(warmup=dict(start_factor=0.001))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline={{_base_.augmented}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
default_hooks = dict(
    ema=dict(momentum=0.0001, gamma=2000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain}}),
)
