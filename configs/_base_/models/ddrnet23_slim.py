# DDRNet-23-slim (arXiv 2101.06085): mmseg's network and losses.
norm = dict(type="BN")
hard = dict(type="mmseg.OhemCrossEntropy", thres=0.9, min_kept=131072)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    divisor=8,
    backbone=dict(type="mmseg.DDRNet", channels=32, ppm_channels=128, norm_cfg=norm),
    decode_head=dict(
        type="mmseg.DDRHead",
        in_channels=128,
        channels=64,
        num_classes=None,
        dropout_ratio=0.0,
        norm_cfg=norm,
        loss_decode=[hard, dict(hard, loss_weight=0.4)],
    ),
)
