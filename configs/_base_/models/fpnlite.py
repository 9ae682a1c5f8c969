# A light feature pyramid on MobileNetV4, size n, or on any backbone with strides 8, 16 and 32.
cross_entropy = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(type="MobileNetV4", variant="conv-s", out_strides=(8, 16, 32)),
    decode_head=dict(
        type="FPNLiteHead",
        channels=96,
        num_classes=None,  # the number of `classes`
        in_index=(0, 1, 2),
        loss_decode=[cross_entropy, dict(type="SoftDiceLoss", loss_weight=0.5)],
    ),
    auxiliary_head=dict(
        type="mmseg.FCNHead",
        in_index=1,
        channels=64,
        num_convs=1,
        concat_input=False,
        num_classes=None,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(cross_entropy, loss_weight=0.4),
    ),
)
