# The o2o detector, size n. Sizes s, m and l are scaled from it: see `scale` in their configs.
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=114.0),
    backbone=dict(type="MobileNetV4", variant="conv-s", out_strides=(8, 16, 32)),
    neck=dict(type="LightPAN", out_channels=(64, 128, 192), depth=1),
    head=dict(
        type="O2OHead",
        num_classes=None,  # the number of `classes`
        assigner=dict(type="TaskAlignedAssigner", topk=7, keep=1, alpha=0.5, beta=6.0),
        one_to_many_assigner=dict(type="TaskAlignedAssigner", topk=10, alpha=0.5, beta=6.0),
        loss_class=dict(type="SoftBCELoss", weight=0.5),
        losses_box=dict(iou=dict(type="CIoULoss", weight=7.5), l1=dict(type="L1BoxLoss", weight=1.5)),
    ),
)
