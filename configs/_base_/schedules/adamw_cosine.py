# AdamW with warm-up and cosine decay, no weight decay of norms and biases: RTMPose (arXiv 2303.07399, section 4.1).
# With Muon the loss grows for heads that multiply their logits by ten.
max_epochs = 60
schedule = dict(warmup_epochs=1)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=35.0),
)
param_scheduler = dict(
    warmup=dict(type="LinearLR", start_factor=0.01, begin=0, end="warmup_epochs", convert_to_iter_based=True),
    decay=dict(type="CosineAnnealingLR", eta_min_ratio=0.01, T_max=None, convert_to_iter_based=True),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
