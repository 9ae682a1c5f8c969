# Your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/. Classes, keypoints and skeleton are
# read from the annotations; `keypoints=dict(sigmas=...)` states how precisely keypoints can be annotated.
#   efftasks train detrpose-n_hgnetv2-b0_1xb8-100e_custom-640 --cfg-options data_root=/data/mine
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/detrpose.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/adamw_queries.py",
]

data_root = "data/custom/"
max_epochs = 100
schedule = dict(warmup_iters=100, flat_until=0, no_aug_from=90 / 100)

default_hooks = dict(
    checkpoint=dict(save_best="coco/keypoints_mAP"),
    ema=dict(momentum=0.0005, gamma=300),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(batch_size=8)
train_cfg = dict(val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = dict(
    warmup=dict(start_factor=0.01),
    decay=dict(eta_min_ratio=0.05, end=None),
)
