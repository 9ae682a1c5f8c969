# Street scenes (CamVid, 11 classes, 367 training images), from scratch, with the optimizer of fpnlite-n for comparison.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/pidnet_s.py",
    "../../_base_/datasets/semantic_folder.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/camvid/"
image_size = (384, 480)
max_epochs = 40

# With the targets of the boundary branch.
edge = dict(type="mmseg.GenerateEdge", edge_width=4)
train_pipeline = [*_base_.train_pipeline[:-1], edge, _base_.pack]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
