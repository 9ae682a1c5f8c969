# AdamW with rates by parameter, gradient clipping, a moving average. Configs say epochs, rates and warm-up.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="PatternConstructor",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
