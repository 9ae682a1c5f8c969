# D-FINE, size L without its backbone. Other sizes change widths and depths; DEIM changes the activation and losses.
costs = [
    dict(type="FocalCost", weight=2.0, alpha=0.25, gamma=2.0),
    dict(type="L1Cost", weight=5.0),
    dict(type="GIoUCost", weight=2.0),
]
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=0.0),
    backbone=dict(type="HGNetV2", variant="b0", out_strides=(8, 16, 32)),
    neck=dict(
        type="HybridEncoder",
        channels=256,
        ffn_channels=1024,
        block="elan",
        fusion="cat",
        expansion=1.0,
        depth=3,
        project=True,
    ),
    head=dict(
        type="QueryHead",
        num_classes=None,  # the number of `classes`
        channels=256,
        selection=dict(type="QuerySelection", num_queries=300, project=True, act="relu"),
        decoder=dict(
            type="DistributionDecoder",
            num_layers=6,
            num_points=(3, 6, 3),
            ffn=dict(hidden=1024, act="relu"),
            norm="layer",
            gate=True,
            act="relu",
            reg_max=32,
            reg_scale=4.0,
        ),
        denoising=dict(type="ContrastiveDenoising", num_queries=100, label_noise=0.5, box_noise=1.0),
        criterion=dict(
            type="SetCriterion",
            matcher=dict(type="HungarianMatcher", costs=costs),
            class_term=dict(type="VarifocalTerm", weight=1.0),
            box_terms=dict(bbox=dict(type="L1Term", weight=5.0), giou=dict(type="GIoUTerm", weight=2.0)),
            side_terms=dict(fgl=dict(type="FineGrainedTerm", weight=0.15)),
            distillation=dict(type="LocalizationDistillation", weight=1.5, temperature=5.0),
            union=True,
        ),
    ),
)
