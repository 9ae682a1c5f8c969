# RT-DETRv2-S on your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/.
#   efftasks convert --from rtdetrv2 published.pth --out start.pth
#   efftasks train rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_finetune \
#       --cfg-options data_root=data/mine load_from=start.pth
# The classes are read from the annotations; if they differ from the checkpoint's, the class layers start from scratch.
# Without `load_from` it trains from scratch, which needs two to four times the epochs.
_base_ = [
    "../../_base_/models/rtdetrv2.py",
    "../../_base_/recipes/query_finetune.py",
]

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(backbone_lr_mult=1.0, no_decay="norm"),
)
