# Any detection data set in COCO format: <data_root>/annotations/{train,val}.json, file names relative to
# <data_root>/images/. Set the folder with `--cfg-options data_root=...`. Without `classes` the classes are the
# categories of the training annotations, ordered by id; stated classes must all be in the annotations.
data_root = "data/coco/"

image_size = (640, 640)  # (height, width)
load = [dict(type="LoadImage"), dict(type="LoadObjects")]
warp = dict(type="RandomWarp", size=None, scale=(0.6, 1.6), translate=0.1)
color = dict(type="mmdet.YOLOXHSVRandomAug")
flip = dict(type="FlipObjects", prob=0.5)
pack = dict(type="PackObjects")
mixup = dict(type="ObjectMixUp", prob=0.1)
train_pipeline = [*load, dict(type="ObjectMosaic", size=None, prob=0.5), warp, color, flip, mixup, pack]
plain_pipeline = [*load, warp, color, flip, pack]  # for the last epochs: no mosaic, no mixup
test_pipeline = [dict(type="LoadImage"), dict(type="FitImage", size=None), pack]

train_dataloader = dict(
    batch_size=16,
    num_workers=None,  # chosen by the number of cores
    persistent_workers=False,  # EpochSeed needs new workers in each epoch
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
    num_workers=None,  # chosen by the number of cores
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
val_evaluator = dict(type="CocoMetric", ann_file=None)  # None: the annotations of the evaluated data set
test_evaluator = val_evaluator
