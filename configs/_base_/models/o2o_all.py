# One network for boxes, masks, keypoints, and semantic segmentation on the maps of the neck.
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
                semantic_weight=0.0,  # the semantic head trains the neck
                losses=dict(
                    bce=dict(type="BoxMaskBCELoss", weight=3.0),
                    dice=dict(type="BoxMaskDiceLoss", weight=3.0),
                ),
            ),
            # Half the weights of o2opose, so that boxes and masks influence the neck as well.
            keypoints=dict(
                type="PointKeypoints",
                sigmas=None,
                branch_channels=32,
                oks_weight=1.0,
                l1_weight=5.0,
                visibility_weight=0.5,
                likelihood_weight=0.05,
                heatmap_weight=0.5,
                affects_score=False,  # the score depends on boxes and masks only
            ),
        ),
    ),
    semantic_head=dict(
        type="FPNLiteHead",
        in_index=(0,),  # the neck is a pyramid already
        channels=32,
        num_classes=None,  # the number of `semantic_classes`
        dropout_ratio=0.0,
        loss_decode=[
            dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True, loss_weight=2.0),
            dict(type="SoftDiceLoss", loss_weight=2.0),
        ],
    ),
)
