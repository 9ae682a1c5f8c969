# AdamW with another rate for the backbone, gradient clipping, linear warm-up, and a constant rate or cosine decay.
schedule = dict(
    warmup_iters=500,
    flat_until=None,  # begin of the decay; None: the rate stays constant
    no_aug_from=None,  # end of the decay and of strong augmentation; None: the end of training
)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="PatternConstructor",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    paramwise_cfg=dict(backbone_lr_mult=0.5, no_decay="norm|bias"),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = dict(
    warmup=dict(type="LinearLR", by_epoch=False, begin=0, end="warmup_iters"),
    decay=dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.1,
        begin="flat_until",
        end="no_aug_from",
        T_max=None,
        convert_to_iter_based=True,
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
