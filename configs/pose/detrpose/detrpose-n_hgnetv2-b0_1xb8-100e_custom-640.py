# Your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/. Classes, keypoints and skeleton come from
# the annotations; `keypoints=dict(sigmas=...)` says how exactly they can be told.
#   efftasks train detrpose-n_hgnetv2-b0_1xb8-100e_custom-640 --cfg-options data_root=/data/mine
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/detrpose.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/adamw_queries.py",
]

data_root = "data/custom/"
max_epochs = 100

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
train_dataloader = dict(batch_size=8)
train_cfg = dict(val_interval=10)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=2e-4, weight_decay=0.0),
            r"^backbone\.": dict(lr=2e-4),
            r"norm|bias": dict(weight_decay=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.05, by_epoch=True, T_max=None, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=90 / 100, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0005, gamma=300, update_buffers=True),
]
