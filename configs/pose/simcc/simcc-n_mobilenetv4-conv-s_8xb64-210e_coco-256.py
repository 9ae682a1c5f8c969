# COCO persons, 17 keypoints, crops of 256 x 192. Not trained: see the README of this folder.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/simcc.py",
    "../../_base_/datasets/coco_topdown.py",
    "../../_base_/schedules/adamw_cosine.py",
]

classes = ("person",)
# fmt: off
keypoints = dict(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    skeleton=[
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ],
)
# fmt: on
max_epochs = 210

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
train_dataloader = dict(batch_size=64)
