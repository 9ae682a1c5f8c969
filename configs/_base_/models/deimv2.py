# DEIMv2 on HGNetV2, size N. Smaller sizes use one feature map of the backbone, the LiteEncoder and a lighter decoder.
costs = [
    dict(type="FocalCost", weight=2.0, alpha=0.25, gamma=2.0),
    dict(type="L1Cost", weight=5.0),
    dict(type="GIoUCost", weight=2.0),
]
late_costs = [dict(type="ScoreIoUCost", power=4.0)]
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=0.0),
    backbone=dict(type="HGNetV2", variant="b0", out_strides=(16, 32)),
    neck=dict(
        type="HybridEncoder", channels=128, ffn_channels=512, block="elan", fusion="sum", expansion=0.34, depth=2
    ),
    head=dict(
        type="QueryHead",
        num_classes=None,  # the number of `classes`
        channels=128,
        selection=dict(type="QuerySelection", num_queries=300, project=False, act="silu"),
        decoder=dict(
            type="DistributionDecoder",
            num_layers=3,
            num_points=(6, 6),
            ffn=dict(hidden=512, act="swiglu"),
            norm="rms",
            gate=True,
            act="silu",
            position_widths=(128, 128),
            moving_position=False,
            reg_max=32,
            reg_scale=4.0,
        ),
        denoising=dict(type="ContrastiveDenoising", num_queries=100, label_noise=0.5, box_noise=1.0),
        criterion=dict(
            type="SetCriterion",
            matcher=dict(type="HungarianMatcher", costs=costs, late_costs=late_costs, late_from=0.85),
            class_term=dict(type="MatchabilityTerm", weight=1.0, gamma=1.5),
            box_terms=dict(bbox=dict(type="L1Term", weight=5.0), giou=dict(type="GIoUTerm", weight=2.0)),
            side_terms=dict(fgl=dict(type="FineGrainedTerm", weight=0.15)),
            distillation=dict(type="LocalizationDistillation", weight=1.5, temperature=5.0),
            union=True,
        ),
    ),
)
