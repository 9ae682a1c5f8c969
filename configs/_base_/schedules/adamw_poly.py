# AdamW with warm-up and linear decay, ten times the learning rate for heads, no weight decay of norms: SegFormer (arXiv
# 2105.15203, section 4.1) and its successors.
max_epochs = 430
schedule = dict(warmup_epochs=4 / 430)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0)), norm_decay_mult=0.0),
)
param_scheduler = dict(
    warmup=dict(type="LinearLR", start_factor=1e-6, begin=0, end="warmup_epochs", convert_to_iter_based=True),
    decay=dict(type="PolyLR", power=1.0, eta_min=0.0, begin="warmup_epochs", end=None, convert_to_iter_based=True),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
