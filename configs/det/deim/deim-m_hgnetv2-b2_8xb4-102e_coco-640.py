# DEIM-D-FINE-M on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 49, none after 90.
_base_ = [
    "../../_base_/models/deim.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 102
schedule = dict(dense_from=4 / 102, flat_until=49 / 102, no_aug_from=90 / 102)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=("dense_from", "flat_until"))),
            dict(type="MultiScale", base=None, base_repeat=6, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(variant="b2"),
    neck=dict(depth=2),
    head=dict(decoder=dict(num_layers=4)),
)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.1, no_decay="norm"),
)
