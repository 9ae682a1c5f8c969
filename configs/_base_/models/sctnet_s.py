# SCTNet-S (arXiv 2312.17071): a single convolutional branch. Its transformer teacher is in the Cityscapes configs.
cross_entropy = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(type="SCTNet", variant="s", detail=True),
    decode_head=dict(type="SCTHead", in_index=[-3], channels=128, num_classes=None, loss_decode=cross_entropy),
    auxiliary_head=dict(
        type="SCTHead", in_index=[0], channels=64, num_classes=None, loss_decode=dict(cross_entropy, loss_weight=0.4)
    ),
)
