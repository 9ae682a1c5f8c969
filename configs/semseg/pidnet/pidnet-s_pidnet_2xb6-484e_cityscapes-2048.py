# Cityscapes, the authors' recipe (120k steps of 12 images), with this package's crops and EMA.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/pidnet_s.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/sgd_poly.py",
]

max_epochs = 484

# Class weights: higher for rare classes.
weights = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)

# With the targets of the boundary branch.
edge = dict(type="mmseg.GenerateEdge", edge_width=4)
train_pipeline = [*_base_.train_pipeline[:-1], edge, _base_.pack]

train_dataloader = dict(batch_size=6, dataset=dict(pipeline=train_pipeline))
model = dict(
    decode_head=dict(
        loss_decode=[
            dict(type="mmseg.CrossEntropyLoss", loss_weight=0.4, class_weight=weights),
            dict(type="mmseg.OhemCrossEntropy", thres=0.9, min_kept=131072, class_weight=weights),
            dict(type="mmseg.BoundaryLoss", loss_weight=20.0),
            dict(type="mmseg.OhemCrossEntropy", thres=0.9, min_kept=131072, class_weight=weights),
        ]
    )
)
