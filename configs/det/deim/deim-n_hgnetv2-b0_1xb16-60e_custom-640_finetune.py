# DEIM-D-FINE-N on your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/.
#   efftasks convert --from deim published.pth --out start.pth
#   efftasks train deim-n_hgnetv2-b0_1xb16-60e_custom-640_finetune \
#       --cfg-options data_root=data/mine load_from=start.pth
# The classes come from the annotations; the heads for other classes than the checkpoint's start anew. Without
# `load_from` it trains from scratch, and wants two to four times the epochs.
_base_ = ["./deim-n_hgnetv2-b0_8xb16-160e_coco-640.py"]

data_root = "data/custom/"
classes = None
max_epochs = 60
model = dict(data_preprocessor=dict(batch_augments=[]))  # few images: no mixing
train_dataloader = dict(batch_size=16, dataset=dict(pipeline={{_base_.augmented}}))
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    paramwise_cfg=dict(
        patterns={
            r"^backbone\..*norm": dict(lr=2e-4),
            r"^backbone\.": dict(lr=2e-4),
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
    dict(type="mmdet.PipelineSwitchHook", switch_epoch=54 / 60, switch_pipeline={{_base_.plain}}),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0005, gamma=300, update_buffers=True),
]
