# Quantization-aware training of a trained o2o-n: give its checkpoint with --cfg-options load_from=dense.pth; see README.md.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

model_transforms = [dict(type="QuantizeAware")]
max_epochs = 12
default_hooks = dict(quantization=dict(type="QuantizationAware", observe=0, quantize=1, freeze=0.75))

# Folded convolutions have biases, so AdamW trains all of them. Their weights are trained: a tenth of the usual rate.
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(val_interval=4)
