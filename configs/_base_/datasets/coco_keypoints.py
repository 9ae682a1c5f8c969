# Any COCO-form set with keypoints: <data_root>/annotations/{train,val}.json, file names relative to
# <data_root>/images/. Give the folder with `--cfg-options data_root=...`. Without `classes` it takes the categories of
# the training annotations, ordered by id; a tuple of names fixes them, and every name must be in the annotations.
# Names and skeleton of the keypoints are the annotations'; `keypoints` of the data sets' metainfo may state `sigmas` (one
# number, or one each) and `flip_pairs`. An object without keypoints is learned as a box alone.
data_root = "data/coco/"

image_size = (640, 640)  # (height, width); what has size=None takes it
load = [dict(type="LoadImage"), dict(type="LoadObjects", keypoints=True)]
finish = [
    dict(type="RandomWarp", size=None, scale=(0.6, 1.6), translate=0.1),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="FlipObjects", prob=0.5),
    dict(type="PackObjects"),
]
train_pipeline = [*load, dict(type="ObjectMosaic", size=None, prob=0.5, cache=40), *finish]
plain_pipeline = [*load, *finish]  # the last epochs: no mosaic
test_pipeline = [dict(type="LoadImage"), dict(type="FitImage", size=None), dict(type="PackObjects")]

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
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
    num_workers=2,
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
# None: the file of the data set it scores
val_evaluator = dict(type="CocoMetric", ann_file=None, kinds=("bbox", "keypoints"))
test_evaluator = val_evaluator
