# D-FINE-N with 0.7 of its FLOPs, on your own data: the backbone, the neck and the feed-forward networks lose channels.
#   efftasks train dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune-prune70 \
#       --cfg-options data_root=data/mine load_from=dense.pth
# where dense.pth is that of dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune on the same data.
_base_ = "../../det/dfine/dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune.py"

optim_wrapper = dict(optimizer=dict(lr=2e-4))
model_transforms = [dict(type="Prune", flops=0.7, importance="taylor", scheme="isomorphic")]
