"""The names in the checkpoints of DETRPose's authors, whose backbone and encoder are those of D-FINE.

Source: the public repository SebastianJanampa/DETRPose, Apache-2.0.
"""

from __future__ import annotations

from efftasks.models.published.authors import AUTHORS
from efftasks.models.published.rules import Layout

__all__ = ["DETRPOSE"]

_TRANSFORMER = [
    (r"^transformer\.enc_output\.", "head.selection.project.linear."),
    (r"^transformer\.enc_output_norm\.", "head.selection.project.norm."),
    (r"^transformer\.enc_out_class_embed\.", "head.selection.score_head."),
    (r"^transformer\.enc_pose_embed\.", "head.selection.pose_head."),
    (r"^transformer\.tgt_embed\.weight", "head.selection.query_tokens"),
    (r"^transformer\.keypoint_embedding\.weight", "head.selection.keypoint_tokens"),
    (r"^transformer\.instance_embedding\.weight", "head.selection.instance_token"),
    (r"^transformer\.pose_enc\.weight", "head.denoising.keypoint_tokens"),
    (r"^transformer\.label_enc\.weight", "head.denoising.label_tokens"),
    (r"^transformer\.class_embed\.", "head.decoder.score_heads."),
    (r"^transformer\.pose_embed\.", "head.decoder.pose_heads."),
    (r"^transformer\.pre_pose_embed\.", "head.decoder.first_pose_head."),
    (r"^transformer\.lqe_embed\.(\d+)\.reg_conf\.", r"head.decoder.quality.\1.head."),
    (r"^transformer\.decoder\.half_pose_ref_point_head\.", "head.decoder.position_head."),
    (r"^transformer\.decoder\.", "head.decoder."),
    (r"^(head\..*)\.within_attn\.", r"\1.within."),
    (r"^(head\..*)\.across_attn\.", r"\1.across."),
    (r"^(head\..*)\.within_norm\.", r"\1.add1.norm."),
    (r"^(head\..*)\.across_norm\.", r"\1.add2.norm."),
    (r"^(head\..*)\.gateway\.", r"\1.gate."),
    (r"^(head\.decoder\.layers\.\d+)\.linear(\d)\.", r"\1.ffn.linear\2."),
    (r"^(head\.decoder\.layers\.\d+)\.norm2\.", r"\1.add3.norm."),
]

DETRPOSE = Layout(
    rules=[*AUTHORS.rules, *_TRANSFORMER],
    parts=AUTHORS.parts,
    recomputed=[r"^transformer\.(?:up|reg_scale|anchors|valid_mask|decoder\.dim_t)$", *AUTHORS.recomputed],
)
