# PP-LiteSeg-T (arXiv 2204.02681) on STDC1, with auxiliary heads at strides 16 and 32.
norm = dict(type="BN")
cross_entropy = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
auxiliary = dict(
    type="mmseg.FCNHead",
    channels=64,
    num_convs=1,
    concat_input=False,
    num_classes=None,
    norm_cfg=norm,
    loss_decode=cross_entropy,
)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(
        type="mmseg.STDCNet",
        stdc_type="STDCNet1",
        in_channels=3,
        channels=(32, 64, 256, 512, 1024),
        bottleneck_type="cat",
        norm_cfg=norm,
        act_cfg=dict(type="ReLU"),
    ),
    decode_head=dict(
        type="PPLiteSegHead",
        in_index=(0, 1, 2),
        decoder_channels=(32, 64, 128),
        channels=32,
        num_classes=None,
        dropout_ratio=0.0,
        sampler=dict(type="mmseg.OHEMPixelSampler", thresh=0.7, min_kept=32500),
        loss_decode=cross_entropy,
    ),
    auxiliary_head=[dict(auxiliary, in_index=1), dict(auxiliary, in_index=2)],
)
