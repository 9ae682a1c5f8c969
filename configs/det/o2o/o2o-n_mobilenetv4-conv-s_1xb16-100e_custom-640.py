# Your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/. The classes come from the annotations.
#   efftasks train o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640 --cfg-options data_root=/data/mine
# Start from weights with `load_from=/path/weights.pth`; class layers of another shape start from scratch.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o.py",
    "../../_base_/datasets/coco_detection.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/custom/"
max_epochs = 100
schedule = dict(no_aug_from=90 / 100)
default_hooks = dict(
    ema=dict(gamma=500),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
