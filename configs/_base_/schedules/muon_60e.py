# Muon for weights that mix channels, AdamW for the rest; linear warm-up, cosine decay, gradient clipping.
max_epochs = 60
schedule = dict(warmup_epochs=1)

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MuonConstructor",
    optimizer=dict(type="MuonAdamW", muon_lr=0.08, lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = dict(
    warmup=dict(type="LinearLR", start_factor=0.01, begin=0, end="warmup_epochs", convert_to_iter_based=True),
    decay=dict(type="CosineAnnealingLR", eta_min_ratio=0.01, T_max=None, convert_to_iter_based=True),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
