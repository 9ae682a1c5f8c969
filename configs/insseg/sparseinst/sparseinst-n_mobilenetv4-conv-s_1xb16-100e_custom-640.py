# Your own data: <data_root>/annotations/{train,val}.json with masks, and <data_root>/images/.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/sparseinst.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/muon_60e.py",
]

max_epochs = 100

default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
data_root = "data/custom/"
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=90 / 100, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=500, update_buffers=True),
]
