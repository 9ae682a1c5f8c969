# DEIM-D-FINE-L on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 29, none after 50.
_base_ = [
    "../../_base_/models/deim.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 58
schedule = dict(dense_from=4 / 58, flat_until=29 / 58, no_aug_from=50 / 58)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=("dense_from", "flat_until"))),
            dict(type="MultiScale", base=None, base_repeat=4, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(variant="b4"),
)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=1.25e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.05, no_decay="norm"),
)
