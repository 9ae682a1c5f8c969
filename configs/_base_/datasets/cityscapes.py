# Cityscapes as it unpacks: <data_root>/leftImg8bit/{train,val} and gtFine/{train,val} with *_gtFine_labelTrainIds.png
# (cityscapesScripts writes them): 19 classes, 2975 images to train on, 500 to validate on, 2048 x 1024.
data_root = "data/cityscapes/"
classes = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)

image_size = (1024, 2048)  # (height, width) of the network input
crop_size = (1024, 1024)  # of the crops in training
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
    batch_size=4,
    num_workers=4,
    persistent_workers=False,  # EpochSeed starts them anew, so that a resumed run is the same run
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="SemanticIoU")
test_evaluator = val_evaluator
