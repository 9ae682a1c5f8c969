# Cityscapes, the larger size.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/ppliteseg_t.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

image_size = (768, 1536)
crop_size = (512, 1024)
max_epochs = 860

train_dataloader = dict(batch_size=4)
model = dict(backbone=dict(stdc_type="STDCNet2"), decode_head=dict(decoder_channels=(64, 96, 128), channels=64))
optim_wrapper = dict(optimizer=dict(lr=0.005))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=5 / 860, by_epoch=True, convert_to_iter_based=True),
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=5 / 860, end=None, by_epoch=True, convert_to_iter_based=True),
]
