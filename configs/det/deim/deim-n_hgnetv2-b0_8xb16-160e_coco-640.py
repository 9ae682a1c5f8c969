# DEIM-D-FINE-N on COCO at 640 px, as published (arXiv 2412.04234): dense augmentation from epoch 4 to 78, none after 148.
_base_ = [
    "../../_base_/models/deim.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 160
schedule = dict(dense_from=4 / 160, flat_until=78 / 160, no_aug_from=148 / 160)
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type="DenseBatchAugment", mixup=dict(prob=0.5, window=("dense_from", "flat_until"))),
        ]
    ),
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = dict(decay=None)  # a constant learning rate
