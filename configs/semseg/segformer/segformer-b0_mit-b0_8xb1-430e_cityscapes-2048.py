# Cityscapes, the authors' recipe (160k steps of 8 images), tested in windows of 1024 x 1024.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/segformer_b0.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/adamw_poly.py",
]

max_epochs = 430

train_dataloader = dict(batch_size=1)
model = dict(test_cfg=dict(mode="slide", crop_size=(1024, 1024), stride=(768, 768)))
