# BiSeNetV2 (arXiv 2004.02147): mmseg's network, with four booster heads in training.
norm = dict(type="BN")
cross_entropy = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
head = dict(type="mmseg.FCNHead", num_classes=None, concat_input=False, norm_cfg=norm, loss_decode=cross_entropy)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    divisor=32,
    backbone=dict(type="mmseg.BiSeNetV2", norm_cfg=norm),
    decode_head=dict(head, in_channels=128, in_index=0, channels=1024, num_convs=1),
    auxiliary_head=[
        dict(head, in_channels=16, in_index=1, channels=16, num_convs=2),
        dict(head, in_channels=32, in_index=2, channels=64, num_convs=2),
        dict(head, in_channels=64, in_index=3, channels=256, num_convs=2),
        dict(head, in_channels=128, in_index=4, channels=1024, num_convs=2),
    ],
)
