# o2o with instance masks: prototypes, mask coefficients of each point, mask IoU in the assigner.
_base_ = ["./o2o.py"]

model = dict(
    head=dict(
        max_detections=100,  # as many as COCO evaluates; each has a mask
        parts=dict(
            masks=dict(
                type="PrototypeMasks",
                num_prototypes=32,
                channels=48,
                branch_channels=32,
                semantic_weight=1.0,
                losses=dict(
                    bce=dict(type="BoxMaskBCELoss", weight=3.0),
                    dice=dict(type="BoxMaskDiceLoss", weight=3.0),
                ),
            )
        ),
    )
)
