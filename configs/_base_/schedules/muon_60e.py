# Muon for the weights that mix channels, AdamW for the rest; a linear warm-up and a cosine; an average that starts
# early; gradient clipping.
max_epochs = 60

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MuonConstructor",
    optimizer=dict(type="MuonAdamW", muon_lr=0.08, lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=True, T_max=None, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

custom_hooks = [
    dict(type="EpochSeed"),
    dict(type="TrainingProgress"),
    dict(type="ReportSkippedImages"),
    dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=200, update_buffers=True),
]
