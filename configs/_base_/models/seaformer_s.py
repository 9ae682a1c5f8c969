# SeaFormer-Small (arXiv 2301.13156): a convolutional branch gated by a branch of squeezed axial attention.
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(type="SeaFormer", variant="small"),
    decode_head=dict(
        type="SeaFormerHead",
        in_index=(0, 1, 2),
        channels=128,
        fusion_channels=(96,),
        num_classes=None,
        dropout_ratio=0.1,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
)
