# DEIM-D-FINE-N on your own data: <data_root>/annotations/{train,val}.json and <data_root>/images/.
#   efftasks convert --from deim published.pth --out start.pth
#   efftasks train deim-n_hgnetv2-b0_1xb16-60e_custom-640_finetune \
#       --cfg-options data_root=data/mine load_from=start.pth
# The classes are read from the annotations; if they differ from the checkpoint's, the class layers start from scratch.
# Without `load_from` it trains from scratch, which needs two to four times the epochs.
_base_ = [
    "../../_base_/models/deim.py",
    "../../_base_/recipes/query_finetune.py",
]

model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
