# D-FINE, size N, with a mask for each query; matching costs and losses on sampled points as in arXiv 2112.01527.
_base_ = ["./dfine.py"]

mask_costs = [dict(type="MaskBCECost", weight=5.0), dict(type="MaskDiceCost", weight=5.0)]
mask_terms = dict(mask=dict(type="MaskBCETerm", weight=5.0), dice=dict(type="MaskDiceTerm", weight=5.0))
model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(
        channels=128,
        max_detections=100,  # as many as COCO evaluates; a mask takes 100 kB
        decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512)),
        masks=dict(type="QueryMasks", mask_channels=64, act="relu"),
        criterion=dict(
            matcher=dict(mask_costs=mask_costs, mask_share=1 / 16),
            mask_terms=mask_terms,
            mask_sampler=dict(share=1 / 16, oversample=3.0, importance=0.75),
        ),
    ),
)
