# One network: boxes, masks, keypoints, and a semantic map on the neck's maps.
_base_ = ["./o2o.py"]

model = dict(
    head=dict(
        max_detections=100,
        parts=dict(
            masks=dict(
                type="PrototypeMasks",
                num_prototypes=32,
                channels=32,
                branch_channels=32,
                semantic_weight=0.0,  # the semantic head teaches the neck
                losses=dict(
                    bce=dict(type="BoxMaskBCELoss", weight=3.0),
                    dice=dict(type="BoxMaskDiceLoss", weight=3.0),
                ),
            ),
            keypoints=dict(type="PointKeypoints", sigmas=None, branch_channels=32),
        ),
    ),
    semantic_head=dict(
        type="FPNLiteHead",
        in_index=(0, 1, 2),
        channels=32,
        num_classes=None,  # as many as `semantic_classes` has
        dropout_ratio=0.0,
        loss_decode=[
            dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True, loss_weight=4.0),
            dict(type="SoftDiceLoss", loss_weight=4.0),
        ],
    ),
)
