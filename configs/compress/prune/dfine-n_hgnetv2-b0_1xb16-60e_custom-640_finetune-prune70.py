# D-FINE-N with 0.7 of its FLOPs, on your own data: the backbone, the neck and the feed-forward networks lose channels.
#   efftasks train dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune-prune70 \
#       --cfg-options data_root=data/mine load_from=dense.pth
# where dense.pth is that of dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune on the same data. Without load_from a network of
# these widths is trained from scratch.
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/recipes/query_finetune.py",
]

model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))  # half of the dense one's
model_transforms = [dict(type="Prune", flops=0.7, importance="taylor", scheme="global")]
