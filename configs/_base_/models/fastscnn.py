# Fast-SCNN (arXiv 1902.04502): mmseg's network and heads.
norm = dict(type="BN")
head = dict(
    num_classes=None,
    concat_input=False,
    norm_cfg=norm,
    loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    divisor=32,
    backbone=dict(type="mmseg.FastSCNN", norm_cfg=norm),
    decode_head=dict(head, type="mmseg.DepthwiseSeparableFCNHead", in_channels=128, in_index=-1, channels=128),
    auxiliary_head=[
        dict(head, type="mmseg.FCNHead", in_channels=128, in_index=-2, channels=32, num_convs=1),
        dict(head, type="mmseg.FCNHead", in_channels=64, in_index=-3, channels=32, num_convs=1),
    ],
)
