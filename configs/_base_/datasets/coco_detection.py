# Any COCO-form detection set: <data_root>/annotations/{train,val}.json, file names relative to <data_root>/images/.
# Give the folder with `--cfg-options data_root=...`. Without `classes` it takes the categories of the training
# annotations, ordered by id; a tuple of names fixes them, and every name must be in the annotations.
data_root = "data/coco/"

image_size = (640, 640)  # (height, width)
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "skipped_files")
load = [dict(type="LoadImage"), dict(type="mmdet.LoadAnnotations", with_bbox=True)]
fit = dict(type="FitImage", size=None)
affine = dict(
    type="mmdet.RandomAffine",
    scaling_ratio_range=(0.6, 1.6),
    max_translate_ratio=0.1,
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    border_val=(114, 114, 114),
)
finish = [
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs", meta_keys=meta_keys),
]
train_pipeline = [
    *load,
    fit,
    dict(type="mmdet.CachedMosaic", img_scale=None, pad_val=114.0, max_cached_images=40, prob=0.5),
    fit,
    dict(type="mmdet.CachedMixUp", img_scale=None, ratio_range=(1.0, 1.0), max_cached_images=20, prob=0.1),
    affine,
    *finish,
]
plain_pipeline = [*load, fit, affine, *finish]  # the last epochs: neither mosaic nor mixup
test_pipeline = [dict(type="LoadImage"), fit, dict(type="mmdet.PackDetInputs", meta_keys=meta_keys)]

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
