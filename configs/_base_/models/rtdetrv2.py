# RT-DETRv2, size S. Other sizes change the backbone, the number of decoder layers and the widths of the encoder.
costs = [
    dict(type="FocalCost", weight=2.0, alpha=0.25, gamma=2.0),
    dict(type="L1Cost", weight=5.0),
    dict(type="GIoUCost", weight=2.0),
]
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=0.0),
    backbone=dict(type="ResNetVD", depth=18, out_strides=(8, 16, 32)),
    neck=dict(
        type="HybridEncoder",
        channels=256,
        ffn_channels=1024,
        block="csp",
        fusion="cat",
        expansion=0.5,
        depth=3,
        project=True,
    ),
    head=dict(
        type="QueryHead",
        num_classes=None,  # the number of `classes`
        channels=256,
        project=True,
        selection=dict(type="QuerySelection", num_queries=300, project=True, act="relu"),
        decoder=dict(type="BoxDecoder", num_layers=3, num_points=(4, 4, 4), ffn_channels=1024, act="relu"),
        denoising=dict(type="ContrastiveDenoising", num_queries=100, label_noise=0.5, box_noise=1.0),
        criterion=dict(
            type="SetCriterion",
            matcher=dict(type="HungarianMatcher", costs=costs),
            class_term=dict(type="VarifocalTerm", weight=1.0, alpha=0.75, gamma=2.0),
            box_terms=dict(bbox=dict(type="L1Term", weight=5.0), giou=dict(type="GIoUTerm", weight=2.0)),
        ),
    ),
)
