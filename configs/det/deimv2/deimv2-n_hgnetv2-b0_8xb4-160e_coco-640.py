# DEIMv2-N on COCO at 640 px, as published (arXiv 2509.20787).
_base_ = [
    "../../_base_/models/deimv2.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 160
schedule = dict(dense_from=4 / 160, flat_until=78 / 160, no_aug_from=148 / 160, late_from=136 / 160)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(
                type="DenseBatchAugment",
                mixup=dict(prob=0.5, window=("dense_from", "flat_until")),
                copyblend=dict(prob=0.4, window=("dense_from", "flat_until")),
            ),
        ]
    ),
    head=dict(criterion=dict(matcher=dict(late_from="late_from"))),
)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = dict(decay=None)  # a constant learning rate
