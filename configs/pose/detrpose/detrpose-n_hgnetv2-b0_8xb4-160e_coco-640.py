# DETRPose-N on COCO's persons at 640 px (arXiv 2506.13027): AdamW, 160 epochs, the last 20 without mosaic. The authors
# start from HGNetV2 weights pretrained on ImageNet (`model.backbone.weights=FILE`). Not trained here.
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

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=1e-5, weight_decay=0.0),
            r"^backbone\.": dict(lr=1e-5),
            r"norm|bias": dict(weight_decay=0.0),
        }
    ),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000)]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=140 / 160, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0001, gamma=1000, update_buffers=True),
]
