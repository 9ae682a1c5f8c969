# COCO persons, 17 keypoints, at 640 px, from ImageNet weights (`model.backbone.weights=FILE`) or scratch. Not trained.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_keypoints.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/muon_60e.py",
]

classes = ("person",)
keypoints = dict(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    )
)
max_epochs = 300
schedule = dict(no_aug_from=280 / 300)

default_hooks = dict(
    checkpoint=dict(save_best="coco/keypoints_mAP"),
    ema=dict(gamma=2000),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(num_workers=4)
