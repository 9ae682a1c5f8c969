# COCO at 640 px, size s: MobileNetV4-Conv-M and a wider neck.
_base_ = ["./o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640.py"]

model = dict(backbone=dict(variant="conv-m"), neck=dict(out_channels=(128, 192, 256)))
