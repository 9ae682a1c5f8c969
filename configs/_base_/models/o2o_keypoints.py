# o2o with keypoints: x, y and visibility of each point's object, OKS in the assigner.
_base_ = ["./o2o.py"]

model = dict(
    head=dict(
        max_detections=100,
        parts=dict(
            keypoints=dict(
                type="PointKeypoints",
                sigmas=None,  # those of the data: their number is the number of keypoints
                branch_channels=48,
                oks_weight=2.0,
                l1_weight=10.0,
                visibility_weight=1.0,
                likelihood_weight=0.1,
                heatmap_weight=1.0,  # teaches the finest map where keypoints are; not in the file
            )
        ),
    )
)
