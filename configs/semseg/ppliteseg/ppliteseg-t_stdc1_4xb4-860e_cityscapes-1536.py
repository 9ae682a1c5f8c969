# Cityscapes, the authors' recipe (160k steps of 16 images): crops of 1024 x 512, tested at 3/4 of the resolution.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/ppliteseg_t.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

image_size = (768, 1536)
crop_size = (512, 1024)
max_epochs = 860
schedule = dict(warmup_epochs=5 / 860)

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.005))
