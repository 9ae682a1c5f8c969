# Quantization-aware training of D-FINE-N on your own data: its backbone and encoder; the decoder stays in float.
# Give a trained checkpoint: --cfg-options load_from=dense.pth
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/recipes/query_finetune.py",
]

model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
model_transforms = [dict(type="QuantizeAware")]
max_epochs = 12
default_hooks = dict(quantization=dict(type="QuantizationAware", observe=0, quantize=1, freeze=0.75))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
