# Cityscapes, the larger size, with a SegFormer-B3 as teacher: `--cfg-options model.guide.teacher.weights=FILE`.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/sctnet_s.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/adamw_poly.py",
]

crop_size = (512, 1024)
max_epochs = 860
schedule = dict(warmup_epochs=8 / 860)

train_dataloader = dict(batch_size=4)
teacher = dict(
    type="mmseg.MixVisionTransformer",
    embed_dims=64,
    num_layers=[3, 4, 18, 3],
    num_heads=[1, 2, 5, 8],
    patch_sizes=[7, 3, 3, 3],
    sr_ratios=[8, 4, 2, 1],
)
model = dict(
    backbone=dict(variant="b"),
    decode_head=dict(channels=256),
    auxiliary_head=dict(channels=128),
    guide=dict(type="TransformerGuide", teacher=dict(weights=None, backbone=teacher)),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=0.0125))
