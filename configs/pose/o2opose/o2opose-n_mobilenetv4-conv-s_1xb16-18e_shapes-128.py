# The built-in shapes (`efftasks dataset shapes --out data/shapes`), from scratch: what `quickstart --task pose` trains.
_base_ = [
    "../../_base_/default_runtime.py",
    "../../_base_/models/o2o_keypoints.py",
    "../../_base_/datasets/coco_keypoints.py",
    "../../_base_/schedules/muon_60e.py",
]

data_root = "data/shapes/"
classes = ("circle", "square", "triangle", "star", "ring", "cross")
keypoints = dict(names=("head", "right", "tail", "left"), sigmas=0.05, skeleton=[(0, 2), (1, 3)])
image_size = (128, 128)
max_epochs = 18

# In few epochs boxes need more weight: with the loss weights of long trainings box AP was 0.52 instead of 0.62, and
# keypoint AP50 0.30 instead of 0.34. Without the likelihood a step takes three quarters of the time.
model = dict(
    head=dict(
        parts=dict(keypoints=dict(oks_weight=1.0, l1_weight=5.0, likelihood_weight=0.0, heatmap_weight=0.5)),
    )
)
default_hooks = dict(checkpoint=dict(save_best="coco/keypoints_mAP"))
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadObjects", keypoints=True),
    # Shapes have no fixed orientation. In so few epochs rotations and flips are enough.
    dict(type="RandomWarp", size=None, scale=(1.0, 1.0), translate=0.0, quarter_turns=True),
    dict(type="FlipObjects", prob=0.5),
    dict(type="PackObjects"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(muon_lr=0.16, lr=3e-3))  # high learning rates for few steps
train_cfg = dict(val_interval=6)
