# Any COCO-form detection set: <data_root>/annotations/{train,val}.json, file names relative to <data_root>/images/.
# Give the folder with `--cfg-options data_root=...`. Without `classes` it takes the categories of the training
# annotations, ordered by id; a tuple of names fixes them, and every name must be in the annotations.
data_root = "data/coco/"

image_size = (640, 640)  # (height, width)
load = [dict(type="LoadImage"), dict(type="LoadObjects")]
warp = dict(type="RandomWarp", size=None, scale=(0.6, 1.6), translate=0.1)
color = dict(type="mmdet.YOLOXHSVRandomAug")
flip = dict(type="FlipObjects", prob=0.5)
pack = dict(type="PackObjects")
mixup = dict(type="ObjectMixUp", prob=0.1)
train_pipeline = [*load, dict(type="ObjectMosaic", size=None, prob=0.5), warp, color, flip, mixup, pack]
plain_pipeline = [*load, warp, color, flip, pack]  # the last epochs: neither mosaic nor mixup
test_pipeline = [dict(type="LoadImage"), dict(type="FitImage", size=None), pack]

train_dataloader = dict(
    batch_size=16,
    num_workers=None,  # as many as there are cores for
    persistent_workers=False,  # EpochSeed starts them anew, so that a resumed run is the same run
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoDetection",
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=None,  # as many as there are cores for
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDetection",
        ann_file="annotations/val.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=None)  # None: the file of the data set it scores
test_evaluator = val_evaluator
