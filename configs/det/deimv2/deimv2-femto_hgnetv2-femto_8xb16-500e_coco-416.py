# DEIMv2-Femto on COCO at 416 px, as published (arXiv 2509.20787).
_base_ = [
    "../../_base_/models/deimv2_lite.py",
    "../../_base_/datasets/coco_80.py",
    "../../_base_/recipes/deim.py",
]

max_epochs = 500
schedule = dict(
    warmup_iters=4000,
    dense_from=4 / 500,
    flat_until=250 / 500,
    no_aug_from=400 / 500,
    late_from=450 / 500,  # another matching cost
    decay_until=468 / 500,
)
image_size = (416, 416)
model = dict(
    backbone=dict(variant="femto"),
    neck=dict(channels=96),
    head=dict(
        channels=96,
        selection=dict(num_queries=150),
        decoder=dict(ffn=dict(hidden=256), position_widths=(96, 96)),
        criterion=dict(matcher=dict(late_from="late_from")),
    ),
)

load = [dict(type="LoadImage"), dict(type="LoadObjects")]
visible = dict(type="FilterObjects", min_side=10)
finish = [dict(type="FlipObjects", prob=0.5), {{_base_.stretch}}, visible, dict(type="PackObjects")]
plain = [*load, *finish]
augmented = [*load, dict(type="RandomChoice", transforms=[{{_base_.zoom_and_crop}}]), visible, *finish]
mixed = dict(type="RandomChoice", transforms=[{{_base_.mosaic}}, {{_base_.zoom_and_crop}}], prob=[0.5, 0.5])
dense = [*load, mixed, visible, *finish]

train_dataloader = dict(batch_size=16, num_workers=4, dataset=dict(pipeline=plain))
val_dataloader = dict(dataset=dict(pipeline={{_base_.stretched_test}}))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1.6e-3))
param_scheduler = dict(decay=dict(end="decay_until"))
default_hooks = dict(
    dense=dict(switch_pipeline=dense),
    augmented=dict(switch_pipeline=augmented),
    no_aug=dict(switch_pipeline=plain),
    restart=dict(epoch="decay_until"),
)
