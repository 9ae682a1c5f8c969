# SegFormer-B0 (arXiv 2105.15203): mmseg's transformer, or any backbone with strides 4 to 32, and head.
model = dict(
    type="Segmentor",
    data_preprocessor=dict(type="SegPreprocessor", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    backbone=dict(
        type="mmseg.MixVisionTransformer",
        embed_dims=32,
        num_layers=(2, 2, 2, 2),
        num_heads=(1, 2, 5, 8),
        patch_sizes=(7, 3, 3, 3),
        sr_ratios=(8, 4, 2, 1),
        drop_path_rate=0.1,
    ),
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_index=(0, 1, 2, 3),
        channels=256,
        num_classes=None,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
)
