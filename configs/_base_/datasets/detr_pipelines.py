# The pipelines of query detectors, which stretch images to the config's `image_size`. Configs start with one of them
# and switch at given epochs: `plain`, `augmented` (D-FINE, RT-DETRv2), `dense` (DEIM: half of the images are mosaics,
# the others are augmented).
load_objects = [dict(type="LoadImage"), dict(type="LoadObjects")]
stretch = dict(type="FitImage", size=None, mode="stretch")
finish_objects = [
    dict(type="FlipObjects", prob=0.5),
    stretch,
    dict(type="FilterObjects", min_side=1),
    dict(type="PackObjects"),
]
distort = dict(type="mmdet.PhotoMetricDistortion")
zoom_and_crop = [
    distort,
    dict(type="RandomZoomOut", ratio=(1, 4), prob=0.5),
    dict(type="RandomIoUCrop", prob=0.8),
]
mosaic = [
    dict(type="ObjectMosaic", size=None, prob=1.0, layout="grid", fill=0),
    dict(type="RandomWarp", size=None, mode="stretch", scale=(0.5, 1.5), rotate=10.0, fill=0, min_visible=0.0),
    distort,
]
plain = [*load_objects, *finish_objects]
augmented = [*load_objects, *zoom_and_crop, *finish_objects]
dense = [
    *load_objects,
    dict(type="RandomChoice", transforms=[mosaic, zoom_and_crop], prob=[0.5, 0.5]),
    *finish_objects,
]
stretched_test = [dict(type="LoadImage"), stretch, dict(type="PackObjects")]
