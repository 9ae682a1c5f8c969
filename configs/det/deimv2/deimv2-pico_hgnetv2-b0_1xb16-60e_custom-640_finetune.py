# DEIMv2-Pico on your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/.
#   efftasks convert --from deimv2 published.pth --out start.pth
#   efftasks train deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune \
#       --cfg-options data_root=data/mine load_from=start.pth
# The classes are read from the annotations; if they differ from the checkpoint's, the class layers start from scratch.
# Without `load_from` it trains from scratch, which needs two to four times the epochs.
_base_ = ["./deimv2-pico_hgnetv2-b0_8xb16-500e_coco-640.py"]

data_root = "data/custom/"
classes = None
max_epochs = 60
schedule = dict(warmup_iters=200, flat_until=30 / 60, no_aug_from=54 / 60, late_from=54 / 60, decay_until=54 / 60)
train_dataloader = dict(batch_size=16, dataset=dict(pipeline={{_base_.augmented}}))
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(val_interval=3)
param_scheduler = dict(
    warmup=dict(type="LinearLR", start_factor=0.01),
    decay=dict(eta_min_ratio=0.1),
)
default_hooks = dict(
    ema=dict(momentum=0.0005, gamma=300),
    dense=None,
    augmented=None,
    restart=None,
)
