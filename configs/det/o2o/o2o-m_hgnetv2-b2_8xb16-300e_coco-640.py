# COCO at 640 px, size m: HGNetV2-B2, and a wider and deeper neck.
_base_ = ["./o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640.py"]

model = dict(
    backbone=dict(type="HGNetV2", variant="b2"),
    neck=dict(out_channels=(192, 256, 384), depth=2),
)
