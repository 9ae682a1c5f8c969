# Any COCO-form keypoints set, a crop an object: <data_root>/annotations/{train,val}.json, file names relative to
# <data_root>/images/. Give the folder with `--cfg-options data_root=...`. Without `classes` it takes the categories of
# the training annotations. Names and skeleton of the keypoints are the annotations'; `keypoints` may state `sigmas` (one
# number, or one each) and `flip_pairs`.
data_root = "data/coco/"

image_size = (256, 192)  # (height, width) of the crops
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="CropBox", size=None, shift=0.1, scale=(0.6, 1.4), degrees=60.0),
    dict(type="MirrorCrop", prob=0.5),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="PackTopDown"),
]
test_pipeline = [dict(type="LoadImage"), dict(type="CropBox", size=None), dict(type="PackTopDown")]

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=False,  # EpochSeed starts them anew, so that a resumed run is the same run
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoTopDown",
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoTopDown",
        ann_file="annotations/val.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", kinds=("keypoints",), ann_file=None)  # None: the file of the data set it scores
test_evaluator = val_evaluator
