# SparseInst, size nano: instance masks without boxes and without NMS, on a light backbone.
model = dict(
    type="Detector",
    data_preprocessor=dict(
        type="DetPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), pad_value=114.0
    ),
    backbone=dict(type="MobileNetV4", variant="conv-s", out_strides=(8, 16, 32)),
    neck=dict(type="InstanceContextEncoder", channels=96),
    head=dict(
        type="SparseInstHead",
        num_classes=None,  # the number of `classes`
        num_instances=100,
        channels=96,
        kernel_channels=48,
        num_convs=3,
        groups=4,
        matcher=dict(type="MaskMatcher", alpha=0.8, beta=0.2),
        losses=dict(
            cls=dict(type="SigmoidFocalLoss", weight=2.0, alpha=0.25, gamma=2.0),
            objectness=dict(type="SoftBCELoss", weight=1.0),
            mask=dict(type="MaskBCELoss", weight=5.0),
            dice=dict(type="MaskDiceLoss", weight=2.0),
        ),
    ),
)
