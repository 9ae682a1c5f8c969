# o2o-n on BCCD with half of its FLOPs: pruned when training starts, then fine-tuned; see README.md.
#   efftasks train o2o-n_mobilenetv4-conv-s_1xb8-24e_bccd-320_prune50 --cfg-options load_from=dense.pth
# Without load_from there are no weights to rank channels by, and a network of these widths is trained from scratch.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

max_epochs = 24
optim_wrapper = dict(optimizer=dict(muon_lr=0.024, lr=6e-4))  # 0.3 of those from scratch
model_transforms = [dict(type="Prune", flops=0.5, importance="taylor", scheme="global", recalibrate=16)]
