# The smallest DEIMv2 on HGNetV2, without widths: one feature map of the backbone, two of the encoder, no distillation.
costs = [
    dict(type="FocalCost", weight=2.0, alpha=0.25, gamma=2.0),
    dict(type="L1Cost", weight=5.0),
    dict(type="GIoUCost", weight=2.0),
]
late_costs = [dict(type="ScoreIoUCost", power=4.0)]
model = dict(
    type="Detector",
    data_preprocessor=dict(type="DetPreprocessor", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), pad_value=0.0),
    backbone=dict(type="HGNetV2", variant="b0", out_strides=(16,)),
    neck=dict(type="LiteEncoder", channels=112, expansion=0.34, depth=2),
    head=dict(
        type="QueryHead",
        num_classes=None,  # the number of `classes`
        channels=112,
        selection=dict(type="QuerySelection", num_queries=200, project=False, act="silu"),
        decoder=dict(
            type="DistributionDecoder",
            num_layers=3,
            num_points=(4, 2),
            ffn=dict(hidden=320, act="swiglu"),
            norm="rms",
            gate=False,
            act="silu",
            position_widths=(112, 112),
            moving_position=False,
            share_box_head=True,
            reg_max=32,
            reg_scale=4.0,
        ),
        denoising=dict(type="ContrastiveDenoising", num_queries=100, label_noise=0.5, box_noise=1.0),
        criterion=dict(
            type="SetCriterion",
            matcher=dict(type="HungarianMatcher", costs=costs, late_costs=late_costs, late_from=0.85),
            class_term=dict(type="MatchabilityTerm", weight=1.0, gamma=1.5),
            box_terms=dict(bbox=dict(type="L1Term", weight=5.0), giou=dict(type="GIoUTerm", weight=2.0)),
        ),
    ),
)
