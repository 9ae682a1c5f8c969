# COCO at 640 px, from ImageNet weights (`model.backbone.weights=FILE`) or from scratch. Not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 300
schedule = dict(no_aug_from=280 / 300)

default_hooks = dict(
    checkpoint=dict(save_best="coco/segm_mAP"),
    ema=dict(gamma=2000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(num_workers=4)
