# COCO at 640 px. Not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/sparseinst.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 110
schedule = dict(no_aug_from=100 / 110)

default_hooks = dict(
    checkpoint=dict(save_best="coco/segm_mAP"),
    ema=dict(gamma=500),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(batch_size=8, num_workers=4)
