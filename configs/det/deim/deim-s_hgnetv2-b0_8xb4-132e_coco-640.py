# DEIM-D-FINE-S on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 64, none after 120.
_base_ = [
    "../../_base_/models/deim.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 132
schedule = dict(dense_from=4 / 132, flat_until=64 / 132, no_aug_from=120 / 132)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=("dense_from", "flat_until"))),
            dict(type="MultiScale", base=None, base_repeat=20, window=(0.0, "no_aug_from")),
        ]
    ),
    neck=dict(expansion=0.5, depth=1),
    head=dict(decoder=dict(num_layers=3)),
)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    paramwise_cfg=dict(no_decay="norm"),
)
