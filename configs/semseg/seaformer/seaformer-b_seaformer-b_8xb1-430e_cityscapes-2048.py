# Cityscapes, the larger size, the authors' recipe (160k steps of 8 images).
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/seaformer_s.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/adamw_poly.py",
]

crop_size = (512, 1024)

train_dataloader = dict(batch_size=1)
model = dict(backbone=dict(variant="base"), decode_head=dict(channels=160, fusion_channels=(128,)))
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    paramwise_cfg=dict(custom_keys=dict(query_position=dict(decay_mult=0.0), key_position=dict(decay_mult=0.0))),
)
