# D-FINE-X on COCO at 640 px, as published (arXiv 2410.13842): the last 8 epochs without augmentation.
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/dfine.py",
]

max_epochs = 80
schedule = dict(no_aug_from=72 / 80)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="MultiScale", base=None, base_repeat=3, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(variant="b5", frozen=("stem", "norms")),
    neck=dict(channels=384, ffn_channels=2048),
    head=dict(decoder=dict(reg_scale=8.0)),
)
optim_wrapper = dict(
    optimizer=dict(lr=2.5e-4, weight_decay=1.25e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.01, no_decay="norm"),
)
