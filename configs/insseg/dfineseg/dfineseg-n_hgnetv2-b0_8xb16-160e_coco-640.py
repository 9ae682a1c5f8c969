# D-FINE-N with query masks on COCO at 640 px: schedule of D-FINE-N (arXiv 2410.13842), masks as in Mask2Former
# (arXiv 2112.01527). The last 12 epochs without mosaic.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/adamw_queries.py",
]

max_epochs = 160
schedule = dict(no_aug_from=148 / 160)
train_dataloader = dict(batch_size=16, num_workers=4)
default_hooks = dict(
    checkpoint=dict(save_best="coco/segm_mAP"),
    ema=dict(momentum=0.0001, gamma=1000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
    restart=dict(type="RestartFromBest", epoch="no_aug_from"),
)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = dict(warmup=dict(start_factor=0.001))
