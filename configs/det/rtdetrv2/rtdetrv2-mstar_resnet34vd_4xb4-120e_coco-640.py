# RT-DETRv2-M* on COCO at 640 px, as published (arXiv 2407.17140).
_base_ = [
    "../../_base_/models/rtdetrv2.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/rtdetrv2.py",
]

max_epochs = 120
schedule = dict(no_aug_from=117 / 120)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="MultiScale", base=None, base_repeat=3, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(depth=34),
    head=dict(decoder=dict(num_layers=4)),
)
