# D-FINE-N on COCO at 640 px, as published (arXiv 2410.13842): the last 12 epochs without augmentation.
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/dfine.py",
]

max_epochs = 160
schedule = dict(no_aug_from=148 / 160)
model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
