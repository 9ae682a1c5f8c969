# The head of RTMPose on a light backbone: one object per crop.
model = dict(
    type="PoseEstimator",
    data_preprocessor=dict(type="DetPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(type="MobileNetV4", variant="conv-s", out_strides=(32,)),
    head=dict(
        type="SimCCHead",
        sigmas=None,  # the sigmas of `keypoints`
        input_size=None,  # the config's `image_size`
        split_ratio=2.0,
        beta=10.0,
        kernel_size=7,
        channels=256,
        attention_channels=128,
    ),
)
