# Your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/. Classes, keypoints and skeleton are
# read from the annotations; left_x and right_x become flip pairs.
#   efftasks train simcc-n_mobilenetv4-conv-s_1xb32-100e_custom-256 --cfg-options data_root=/data/mine
# State the rest in a config: `keypoints=dict(sigmas=0.07, flip_pairs=[("head", "tail")])`.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/simcc.py",
    "../../_base_/datasets/coco_topdown.py",
    "../../_base_/schedules/adamw_cosine.py",
]

data_root = "data/custom/"
max_epochs = 100

default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
