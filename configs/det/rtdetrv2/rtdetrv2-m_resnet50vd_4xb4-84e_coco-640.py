# RT-DETRv2-M on COCO at 640 px, as published (arXiv 2407.17140).
_base_ = [
    "../../_base_/models/rtdetrv2.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/rtdetrv2.py",
]

max_epochs = 84
schedule = dict(no_aug_from=81 / 84)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="MultiScale", base=None, base_repeat=3, window=(0.0, "no_aug_from")),
        ]
    ),
    backbone=dict(depth=50, frozen=("stem", "norms")),
    head=dict(decoder=dict(num_layers=6, eval_layers=3)),
)
optim_wrapper = dict(paramwise_cfg=dict(backbone_lr_mult=0.1, no_decay="norm"))
