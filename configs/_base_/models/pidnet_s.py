# PIDNet-S (arXiv 2206.02066): mmseg's network and losses.
norm = dict(type="BN")
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    divisor=8,
    backbone=dict(
        type="mmseg.PIDNet",
        channels=32,
        ppm_channels=96,
        num_stem_blocks=2,
        num_branch_blocks=3,
        norm_cfg=norm,
    ),
    decode_head=dict(
        type="mmseg.PIDHead",
        in_channels=128,
        channels=128,
        num_classes=None,
        norm_cfg=norm,
        align_corners=True,
        loss_decode=[
            dict(type="mmseg.CrossEntropyLoss", loss_weight=0.4, avg_non_ignore=True),
            dict(type="mmseg.OhemCrossEntropy", thres=0.9, min_kept=131072),
            dict(type="mmseg.BoundaryLoss", loss_weight=20.0),
            dict(type="mmseg.OhemCrossEntropy", thres=0.9, min_kept=131072),
        ],
    ),
)
