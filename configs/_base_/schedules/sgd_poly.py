# SGD with polynomial decay, the long schedule of two- and three-branch networks (BiSeNetV2, arXiv 2004.02147, section
# 5.1; PIDNet, arXiv 2206.02066, section 5.2).
max_epochs = 484
schedule = dict(warmup_epochs=0)

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(
    warmup=dict(type="LinearLR", start_factor=0.1, begin=0, end="warmup_epochs", convert_to_iter_based=True),
    decay=dict(type="PolyLR", power=0.9, eta_min=0.0, begin="warmup_epochs", end=None, convert_to_iter_based=True),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=None, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
