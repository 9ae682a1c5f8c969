# A folder of your own, from scratch or from ImageNet weights in the backbone.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/pidnet_s.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/sgd_poly.py",
]

data_root = "data/mine/"
max_epochs = 100

# With the targets of the boundary branch.
edge = dict(type="mmseg.GenerateEdge", edge_width=4)
train_pipeline = [*_base_.train_pipeline[:-1], edge, _base_.pack]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
