"""The names of the same models in Hugging Face transformers: RTDetrV2, DFine and Deimv2 ``ForObjectDetection``.

Both the names of transformers 5 and those that older versions wrote to files are understood.
"""

from __future__ import annotations

from efftasks.models.published.rules import Layout

__all__ = ["DEIMV2", "DFINE", "RTDETRV2"]

_BACKBONE = [
    (r"^model\.(?:backbone|conv_encoder)\.model\.", "backbone."),
    (r"^backbone\.embedder\.embedder\.(\d+)\.", r"backbone.stem.\1."),
    (r"^backbone\.embedder\.", "backbone.stem."),
    (r"^backbone\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.", r"backbone.stages.\1.\2.branch."),
    (r"^backbone\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(?:1\.)?", r"backbone.stages.\1.\2.shortcut.conv."),
    (r"^backbone\.encoder\.stages\.", "backbone.stages."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.norm."),
]
_ATTENTION = [
    (r"\.self_attn\.(?:o_proj|out_proj)\.", ".self_attn.out_proj."),
    (r"\.self_attn_layer_norm\.", ".add1.norm."),
    (r"\.mlp\.layers\.0\.|\.(?:mlp\.)?fc1\.", ".ffn.linear1."),
    (r"\.mlp\.layers\.1\.|\.(?:mlp\.)?fc2\.", ".ffn.linear2."),
    (r"\.mlp\.down_proj\.", ".ffn.w3."),
]
_ENCODER = [
    (r"^model\.(?:backbone\.|conv_encoder\.)?encoder_input_proj\.(\d+)\.(?:0|conv)\.", r"neck.input_proj.\1.conv."),
    (r"^model\.(?:backbone\.|conv_encoder\.)?encoder_input_proj\.(\d+)\.(?:1|norm)\.", r"neck.input_proj.\1.norm."),
    (r"^model\.encoder\.(?:aifi|encoder)\.0\.layers\.(\d+)\.final_layer_norm\.", r"neck.layers.\1.add2.norm."),
    (r"^model\.encoder\.(?:aifi|encoder)\.0\.layers\.", "neck.layers."),
    (r"^model\.encoder\.input_proj\.0\.", "neck.input_proj."),
    (r"^model\.encoder\.down_conv(\d)\.", r"neck.down\1.1."),
    (r"^model\.encoder\.bi_fusion_conv\.", "neck.context."),
    (r"^model\.encoder\.lateral_convs\.", "neck.laterals."),
    (r"^model\.encoder\.(?:fpn_blocks|fpn_block)\.", "neck.top_down."),
    (r"^model\.encoder\.(?:pan_blocks|pan_block)\.", "neck.bottom_up."),
    (r"^model\.encoder\.downsample_convs\.(\d+)\.conv1\.", r"neck.down.\1.0."),
    (r"^model\.encoder\.downsample_convs\.(\d+)\.conv2\.", r"neck.down.\1.1."),
    (r"^model\.encoder\.downsample_convs\.", "neck.down."),
    (r"^(neck\.(?:top_down|bottom_up)\..*)\.bottlenecks\.", r"\1.blocks."),
]
_DECODER = [
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"head.input_proj.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"head.input_proj.\1.norm."),
    (r"^model\.enc_output\.0\.", "head.selection.project.linear."),
    (r"^model\.enc_output\.1\.", "head.selection.project.norm."),
    (r"^model\.enc_score_head\.", "head.selection.score_head."),
    (r"^model\.enc_bbox_head\.", "head.selection.box_head."),
    (r"^model\.denoising_class_embed\.", "head.denoising.embedding."),
    (r"^model\.decoder\.query_pos_head\.", "head.decoder.position_head."),
    (r"^(?:model\.decoder\.)?class_embed\.", "head.decoder.score_heads."),
    (r"^(?:model\.decoder\.)?bbox_embed\.", "head.decoder.box_heads."),
    (r"^model\.decoder\.pre_bbox_head\.", "head.decoder.first_box_head."),
    (r"^model\.decoder\.lqe_layers\.(\d+)\.reg_conf\.", r"head.decoder.quality.\1.head."),
    (r"^model\.decoder\.layers\.(\d+)\.encoder_attn_layer_norm\.", r"head.decoder.layers.\1.add2.norm."),
    (r"^model\.decoder\.layers\.(\d+)\.encoder_attn\.", r"head.decoder.layers.\1.cross_attn."),
    (r"^model\.decoder\.layers\.(\d+)\.gateway\.", r"head.decoder.layers.\1.add2."),
    (r"^model\.decoder\.layers\.(\d+)\.final_layer_norm\.", r"head.decoder.layers.\1.add3.norm."),
    (r"^model\.decoder\.layers\.", "head.decoder.layers."),
]
_RECOMPUTED = [r"^model\.decoder\.(?:up|reg_scale)$", r"\.(?:num|n)_points_scale$", r"^model\.(?:anchors|valid_mask)$"]
_ATTENTION_PARTS = [
    (r"\.self_attn\.q_proj\.(weight|bias)$", r".self_attn.in_proj_\1", 0),
    (r"\.self_attn\.k_proj\.(weight|bias)$", r".self_attn.in_proj_\1", 1),
    (r"\.self_attn\.v_proj\.(weight|bias)$", r".self_attn.in_proj_\1", 2),
]
_BLOCK = r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?)"
_COMMON = [*_BACKBONE, *_ATTENTION, *_ENCODER, *_DECODER]

# The CSP block: conv1 goes deep, conv2 straight, conv3 brings the width back.
RTDETRV2 = Layout(
    rules=[*_COMMON, (_BLOCK + r"conv3\.", r"\1merge.")],
    parts=[*_ATTENTION_PARTS, (_BLOCK + r"conv2\.", r"\1split.", 0), (_BLOCK + r"conv1\.", r"\1split.", 1)],
    recomputed=_RECOMPUTED,
)

# The ELAN block: conv1, two CSP blocks with a 3x3 each, conv4.
DFINE = Layout(
    rules=[
        *_COMMON,
        (_BLOCK + r"conv1\.", r"\1split."),
        (_BLOCK + r"conv2\.", r"\1stages.0.1."),
        (_BLOCK + r"conv3\.", r"\1stages.1.1."),
        (_BLOCK + r"conv4\.", r"\1merge."),
        (_BLOCK + r"csp_rep1\.", r"\1stages.0.0."),
        (_BLOCK + r"csp_rep2\.", r"\1stages.1.0."),
    ],
    parts=[
        *_ATTENTION_PARTS,
        (_BLOCK + r"(stages\.\d\.0)\.conv2\.", r"\1\2.split.", 0),
        (_BLOCK + r"(stages\.\d\.0)\.conv1\.", r"\1\2.split.", 1),
    ],
    recomputed=_RECOMPUTED,
)

# The ELAN block with the 3x3 inside the CSP blocks, whose conv1 already gives both halves.
DEIMV2 = Layout(
    rules=[
        *_COMMON,
        (_BLOCK + r"conv1\.", r"\1split."),
        (_BLOCK + r"conv2\.", r"\1merge."),
        (_BLOCK + r"csp_rep1\.conv1\.", r"\1stages.0.0.split."),
        (_BLOCK + r"csp_rep1\.conv2\.", r"\1stages.0.1."),
        (_BLOCK + r"csp_rep1\.", r"\1stages.0.0."),
        (_BLOCK + r"csp_rep2\.conv1\.", r"\1stages.1.0.split."),
        (_BLOCK + r"csp_rep2\.conv2\.", r"\1stages.1.1."),
        (_BLOCK + r"csp_rep2\.", r"\1stages.1.0."),
    ],
    parts=[
        *_ATTENTION_PARTS,
        (r"\.mlp\.gate_proj\.", ".ffn.w12.", 0),
        (r"\.mlp\.up_proj\.", ".ffn.w12.", 1),
        (r"^head\.decoder\.box_heads\.\d+\.", "head.decoder.box_heads.0.", 0),
    ],
    recomputed=_RECOMPUTED,
)
