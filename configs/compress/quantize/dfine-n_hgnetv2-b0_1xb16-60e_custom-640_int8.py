# D-FINE-N on your own data, exported in 8-bit integers; its selection and decoder stay in float. Take the checkpoint that
# dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune trained.
#   efftasks export dfine-n_hgnetv2-b0_1xb16-60e_custom-640_int8 best.pth --precision int8 --out out --eval \
#       --cfg-options data_root=data/mine
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/recipes/query_finetune.py",
]

model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
quantization = dict(method="auto", images=256, subset=128, weight_bits=7, float_layers=[])
