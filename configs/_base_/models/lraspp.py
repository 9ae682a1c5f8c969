# LR-ASPP (arXiv 1905.02244, section 6.4): mmseg's head on MobileNetV4, or any backbone with strides 4, 8 and 16.
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(type="MobileNetV4", variant="conv-s", out_strides=(4, 8, 16)),
    decode_head=dict(
        type="mmseg.LRASPPHead",
        in_index=(0, 1, 2),
        input_transform="multiple_select",
        channels=128,
        num_classes=None,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
)
