# DETRPose, size N; other sizes change the backbone, widths and depths: see DETRPoseHead.
costs = [
    dict(type="FocalCost", weight=2.0, alpha=0.25, gamma=2.0),
    dict(type="PoseL1Cost", weight=10.0),
    dict(type="OKSCost", weight=4.0),
]
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=0.0),
    backbone=dict(type="HGNetV2", variant="b0", out_strides=(16, 32)),
    neck=dict(
        type="HybridEncoder",
        channels=128,
        ffn_channels=512,
        block="elan",
        fusion="cat",
        expansion=0.34,
        depth=2,
        project=True,
        position="fraction",
        activate_laterals=True,
    ),
    head=dict(
        type="DETRPoseHead",
        num_classes=None,  # the number of `classes`
        sigmas=None,  # the sigmas of `keypoints`
        channels=128,
        selection=dict(type="PoseSelection", num_queries=60),
        decoder=dict(
            type="PoseDecoder",
            num_layers=3,
            num_points=(6, 6),
            ffn_channels=512,
            reg_max=32,
            reg_scale=4.0,
        ),
        denoising=dict(type="PoseDenoising", num_queries=20, label_noise=0.5),
        criterion=dict(
            type="PoseCriterion",
            matcher=dict(type="PoseMatcher", costs=costs),
            class_term=dict(type="VarifocalTerm", weight=2.0, alpha=0.25, gamma=2.0),
            pose_terms=dict(kpt=dict(type="PoseL1Term", weight=10.0), oks=dict(type="OKSTerm", weight=4.0)),
        ),
        max_detections=60,
    ),
)
