# D-FINE-M on COCO at 640 px, as published (arXiv 2410.13842): the last 12 epochs without augmentation.
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/dfine.py",
]

max_epochs = 132
schedule = dict(no_aug_from=120 / 132)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="MultiScale", base=None, base_repeat=6, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(variant="b2"),
    neck=dict(depth=2),
    head=dict(decoder=dict(num_layers=4)),
)
optim_wrapper = dict(paramwise_cfg=dict(backbone_lr_mult=0.1))
