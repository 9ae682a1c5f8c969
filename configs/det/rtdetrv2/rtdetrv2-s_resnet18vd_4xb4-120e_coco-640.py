# RT-DETRv2-S on COCO at 640 px, as published (arXiv 2407.17140).
_base_ = [
    "../../_base_/models/rtdetrv2.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/rtdetrv2.py",
]

max_epochs = 120
schedule = dict(no_aug_from=117 / 120)
optim_wrapper = dict(paramwise_cfg=dict(backbone_lr_mult=1.0, no_decay="norm"))
