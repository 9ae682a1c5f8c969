# DETRPose-N on COCO persons at 640 px (arXiv 2506.13027): AdamW, 160 epochs, the last 20 without mosaic. The authors
# start from HGNetV2 weights pretrained on ImageNet (`model.backbone.weights=FILE`). Not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/detrpose.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/adamw_queries.py",
]

classes = ("person",)
keypoints = dict(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    )
)
max_epochs = 160
schedule = dict(warmup_iters=1000, no_aug_from=140 / 160)

default_hooks = dict(
    checkpoint=dict(save_best="coco/keypoints_mAP"),
    ema=dict(momentum=0.0001, gamma=1000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.1),
)
param_scheduler = dict(warmup=dict(start_factor=0.001))
