# o2o with keypoints: each point predicts x, y and visibility, with OKS in the assigner.
_base_ = ["./o2o.py"]

model = dict(
    head=dict(
        max_detections=100,
        parts=dict(
            keypoints=dict(
                type="PointKeypoints",
                sigmas=None,  # the sigmas of `keypoints`, one for each
                branch_channels=48,
                oks_weight=2.0,
                l1_weight=10.0,
                visibility_weight=1.0,
                likelihood_weight=0.1,
                heatmap_weight=1.0,  # auxiliary heatmap loss on the finest feature map; training only
            )
        ),
    )
)
