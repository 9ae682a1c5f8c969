# Any folder of images and label maps: <data_root>/img/{train,val}/X.jpg and <data_root>/ann/{train,val}/X.png. A
# pixel of a label map is the index of its class or 255. Without `classes` they are read from <data_root>/classes.json.
data_root = "data/mine/"

image_size = (512, 512)  # (height, width): of the crops in training, and of the network input
meta_keys = ("img_path", "ori_shape", "img_shape", "scale_factor", "skipped_files")
pack = dict(type="mmseg.PackSegInputs", meta_keys=meta_keys)
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadSegMap"),
    dict(type="RandomScaledCrop", size=None, scale=(0.5, 2.0)),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmcv.RandomFlip", prob=0.5),
    pack,
]
test_pipeline = [dict(type="LoadImage"), dict(type="FitImage", size=None), dict(type="LoadSegMap"), pack]

train_dataloader = dict(
    batch_size=16,
    num_workers=None,  # chosen by the number of cores
    persistent_workers=False,  # EpochSeed needs new workers in each epoch
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="SemanticFolder",
        data_prefix=dict(img_path="img/train", seg_map_path="ann/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=None,  # chosen by the number of cores
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="SemanticFolder",
        data_prefix=dict(img_path="img/val", seg_map_path="ann/val"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="SemanticIoU")
test_evaluator = val_evaluator
