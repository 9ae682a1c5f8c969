# Your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/. Classes, keypoints and skeleton are
# read from the annotations; `keypoints=dict(sigmas=...)` states how precisely keypoints can be annotated.
#   efftasks train o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640 --cfg-options data_root=/data/mine
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_keypoints.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/custom/"
max_epochs = 100
schedule = dict(no_aug_from=90 / 100)

default_hooks = dict(
    checkpoint=dict(save_best="coco/keypoints_mAP"),
    ema=dict(gamma=500),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
