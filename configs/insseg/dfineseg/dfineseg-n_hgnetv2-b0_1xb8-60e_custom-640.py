# D-FINE-N with query masks on your own data: <data_root>/annotations/{train,val}.json with segmentations, and
# <data_root>/images/.
#   efftasks convert --from dfine published.pth --out start.pth
#   efftasks train dfineseg-n_hgnetv2-b0_1xb8-60e_custom-640 --cfg-options data_root=data/mine load_from=start.pth
# The classes are read from the annotations. It starts from a published D-FINE-N, with a mask branch from scratch.
# Without `load_from` all is trained from scratch, which needs two to four times the epochs.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/adamw_queries.py",
]

data_root = "data/custom/"
max_epochs = 60
schedule = dict(warmup_iters=200, flat_until=30 / 60, no_aug_from=54 / 60)
default_hooks = dict(
    checkpoint=dict(save_best="coco/segm_mAP"),
    ema=dict(momentum=0.0005, gamma=300),
    no_aug=dict(type="mmdet.PipelineSwitchHook", switch_epoch="no_aug_from", switch_pipeline={{_base_.plain_pipeline}}),
)
train_dataloader = dict(batch_size=8, num_workers=2)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = dict(warmup=dict(start_factor=0.01))
train_cfg = dict(val_interval=3)
