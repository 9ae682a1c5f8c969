# STDC1 (arXiv 2104.13188): mmseg's network with hard pixel mining, and the detail head in training.
norm = dict(type="BN")
head = dict(
    type="mmseg.FCNHead",
    num_classes=None,
    num_convs=1,
    concat_input=False,
    norm_cfg=norm,
    sampler=dict(type="mmseg.OHEMPixelSampler", thresh=0.7, min_kept=10000),
    loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    divisor=32,
    backbone=dict(
        type="mmseg.STDCContextPathNet",
        backbone_cfg=dict(
            type="mmseg.STDCNet",
            stdc_type="STDCNet1",
            in_channels=3,
            channels=(32, 64, 256, 512, 1024),
            bottleneck_type="cat",
            norm_cfg=norm,
            act_cfg=dict(type="ReLU"),
        ),
        last_in_channels=(1024, 512),
        out_channels=128,
        ffm_cfg=dict(in_channels=384, out_channels=256, scale_factor=4),
        norm_cfg=norm,
    ),
    decode_head=dict(head, in_channels=256, in_index=3, channels=256, align_corners=True),
    auxiliary_head=[
        dict(head, in_channels=128, in_index=2, channels=64),
        dict(head, in_channels=128, in_index=1, channels=64),
        dict(
            type="mmseg.STDCHead",
            in_channels=256,
            in_index=0,
            channels=64,
            num_convs=1,
            num_classes=2,  # detail or none
            boundary_threshold=0.1,
            concat_input=False,
            norm_cfg=norm,
            align_corners=True,
            loss_decode=[
                dict(type="mmseg.CrossEntropyLoss", loss_name="loss_ce", use_sigmoid=True),
                dict(type="mmseg.DiceLoss", loss_name="loss_dice"),
            ],
        ),
    ],
)
