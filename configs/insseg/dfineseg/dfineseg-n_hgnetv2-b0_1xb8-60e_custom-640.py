# D-FINE-N with query masks on your own data: <data_root>/annotations/{train,val}.json with segmentations, and
# <data_root>/images/.
#   efftasks convert --from dfine published.pth --out start.pth
#   efftasks train dfineseg-n_hgnetv2-b0_1xb8-60e_custom-640 --cfg-options data_root=data/mine load_from=start.pth
# The classes come from the annotations. The start is a published D-FINE-N: boxes begin trained, the masks start anew.
# Without `load_from` it trains from scratch, and wants two to four times the epochs.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/dfine_masks.py",
    "../../_base_/datasets/coco_instances.py",
    "../../_base_/schedules/adamw_queries.py",
]

data_root = "data/custom/"
max_epochs = 60
default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
train_dataloader = dict(batch_size=8, num_workers=2)
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
train_cfg = dict(val_interval=3)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.1,
        by_epoch=True,
        begin=30 / 60,
        end=54 / 60,
        T_max=None,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=54 / 60, switch_pipeline={{_base_.plain_pipeline}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0005, gamma=300, update_buffers=True),
]
