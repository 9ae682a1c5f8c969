# Fine-tuning of query detectors on a few thousand images or fewer: <data_root>/annotations/{train,val}.json and
# <data_root>/images/. The classes are read from the annotations.
_base_ = [
    "../default_runtime.py",
    "../datasets/coco_detection.py",
    "../datasets/detr_pipelines.py",
    "../schedules/adamw_queries.py",
]

data_root = "data/custom/"
max_epochs = 60
schedule = dict(warmup_iters=200, flat_until=30 / 60, no_aug_from=54 / 60)
param_scheduler = dict(warmup=dict(start_factor=0.01))
train_dataloader = dict(batch_size=16, num_workers=4, dataset=dict(pipeline={{_base_.augmented}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
train_cfg = dict(val_interval=3)
default_hooks = dict(
    ema=dict(momentum=0.0005, gamma=300),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain}}),
)
