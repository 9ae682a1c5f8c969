# The pipelines of query detectors, for images stretched to the config's `image_size`. A config chooses one to start
# with and switches at its epochs: `plain`, `augmented` (D-FINE, RT-DETRv2), `dense` (DEIM: half of the images are
# mosaics, the others are augmented).
pack_objects = dict(
    type="mmdet.PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "skipped_files"),
)
load_objects = [dict(type="LoadImage"), dict(type="mmdet.LoadAnnotations", with_bbox=True)]
stretch = dict(type="FitImage", size=None, mode="stretch")
visible = dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(1, 1), keep_empty=False)
finish_objects = [dict(type="mmdet.RandomFlip", prob=0.5), stretch, visible, pack_objects]
distort = dict(type="mmdet.PhotoMetricDistortion")
zoom_and_crop = [
    distort,
    dict(type="mmdet.Expand", mean=(0, 0, 0), to_rgb=False, ratio_range=(1, 4), prob=0.5),
    dict(type="RandomApply", prob=0.8, transforms=[dict(type="mmdet.MinIoURandomCrop")]),
    visible,
]
mosaic = [
    dict(type="GridMosaic", tile_size=None, max_rotate_degree=10.0, scaling_ratio_range=(0.5, 1.5)),
    distort,
    visible,
]
plain = [*load_objects, *finish_objects]
augmented = [*load_objects, *zoom_and_crop, *finish_objects]
dense = [
    *load_objects,
    dict(type="RandomChoice", transforms=[mosaic, zoom_and_crop], prob=[0.5, 0.5]),
    *finish_objects,
]
stretched_test = [dict(type="LoadImage"), stretch, pack_objects]
