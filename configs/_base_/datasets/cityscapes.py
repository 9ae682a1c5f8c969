# Cityscapes as unpacked: <data_root>/leftImg8bit/{train,val} and gtFine/{train,val} with *_gtFine_labelTrainIds.png
# (written by cityscapesScripts): 19 classes, 2975 training and 500 validation images of 2048 x 1024.
_base_ = "./semantic_folder.py"

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

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
    ),
)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
    ),
)
test_dataloader = val_dataloader
