# A folder of your own, from scratch or from ImageNet weights in the backbone.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/pidnet_s.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/sgd_poly.py",
]

data_root = "data/mine/"
max_epochs = 100

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadSegMap"),
    dict(type="RandomScaledCrop", size=None, scale=(0.5, 2.0)),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmcv.RandomFlip", prob=0.5),
    dict(type="mmseg.GenerateEdge", edge_width=4),  # what the boundary branch learns
    dict(type="mmseg.PackSegInputs", meta_keys={{_base_.meta_keys}}),
]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
