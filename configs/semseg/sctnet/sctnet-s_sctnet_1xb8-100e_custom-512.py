# A folder of your own, from scratch or from ImageNet weights in the backbone.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/sctnet_s.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/adamw_poly.py",
]

data_root = "data/mine/"
max_epochs = 100
schedule = dict(warmup_epochs=4 / 100)

train_dataloader = dict(batch_size=8)
