"""The names in the authors' own checkpoints: D-FINE, DEIM, DEIMv2 (HGNetV2) and RT-DETRv2 share a code base.

Sources: the public repositories Peterande/D-FINE, Intellindust-AI-Lab/DEIM, Intellindust-AI-Lab/DEIMv2 and
lyuwenyu/RT-DETR (rtdetrv2_pytorch), all Apache-2.0.
"""

from __future__ import annotations

from efftasks.models.backbones.resnet_vd import PUBLISHED_NAMES
from efftasks.models.published.rules import Layout

__all__ = ["AUTHORS"]

_HGNET = [(r"^(backbone\..*)\.bn\.", r"\1.norm.")]
_RESNET = [(r"^backbone\." + pattern, "backbone." + name) for pattern, name in PUBLISHED_NAMES]
_LITE_ENCODER = [
    (r"^encoder\.down_sample(\d)\.1\.", r"neck.down\1.1.conv."),
    (r"^encoder\.down_sample(\d)\.2\.", r"neck.down\1.1.norm."),
    (r"^encoder\.bi_fusion\.cv\.", "neck.context."),
    (r"^encoder\.fpn_block\.", "neck.top_down."),
    (r"^encoder\.pan_block\.", "neck.bottom_up."),
]
_HYBRID_ENCODER = [
    (r"^encoder\.input_proj\.", "neck.input_proj."),
    (r"^encoder\.encoder\.0\.layers\.(\d+)\.linear(\d)\.", r"neck.layers.\1.ffn.linear\2."),
    (r"^encoder\.encoder\.0\.layers\.(\d+)\.norm(\d)\.", r"neck.layers.\1.add\2.norm."),
    (r"^encoder\.encoder\.0\.layers\.", "neck.layers."),
    (r"^encoder\.lateral_convs\.", "neck.laterals."),
    (r"^encoder\.fpn_blocks\.", "neck.top_down."),
    (r"^encoder\.pan_blocks\.", "neck.bottom_up."),
    (r"^encoder\.downsample_convs\.(\d+)\.0\.cv1\.", r"neck.down.\1.0."),
    (r"^encoder\.downsample_convs\.(\d+)\.0\.cv2\.", r"neck.down.\1.1."),
    (r"^encoder\.downsample_convs\.", "neck.down."),
]
_FUSION_BLOCKS = [
    (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?)cv1\.", r"\1split."),
    (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?)cv2\.", r"\1stages.0."),
    (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?)cv3\.", r"\1stages.1."),
    (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?)cv4\.", r"\1merge."),
    (r"^(neck\..*)\.bottlenecks\.", r"\1.blocks."),
    (r"^(neck\.(?:top_down|bottom_up)\..*?)conv3\.", r"\1merge."),
]
_DECODER = [
    (r"^decoder\.input_proj\.", "head.input_proj."),
    (r"^decoder\.enc_output\.proj\.", "head.selection.project.linear."),
    (r"^decoder\.enc_output\.norm\.", "head.selection.project.norm."),
    (r"^decoder\.enc_score_head\.", "head.selection.score_head."),
    (r"^decoder\.enc_bbox_head\.", "head.selection.box_head."),
    (r"^decoder\.denoising_class_embed\.", "head.denoising.embedding."),
    (r"^decoder\.query_pos_head\.", "head.decoder.position_head."),
    (r"^decoder\.dec_score_head\.", "head.decoder.score_heads."),
    (r"^decoder\.dec_bbox_head\.", "head.decoder.box_heads."),
    (r"^decoder\.pre_bbox_head\.", "head.decoder.first_box_head."),
    (r"^decoder\.decoder\.lqe_layers\.(\d+)\.reg_conf\.", r"head.decoder.quality.\1.head."),
    (r"^decoder\.decoder\.layers\.(\d+)\.(?:linear(\d))\.", r"head.decoder.layers.\1.ffn.linear\2."),
    (r"^decoder\.decoder\.layers\.(\d+)\.swish_ffn\.", r"head.decoder.layers.\1.ffn."),
    (r"^decoder\.decoder\.layers\.(\d+)\.gateway\.", r"head.decoder.layers.\1.add2."),
    (r"^decoder\.decoder\.layers\.(\d+)\.norm(\d)\.", r"head.decoder.layers.\1.add\2.norm."),
    (r"^decoder\.decoder\.layers\.", "head.decoder.layers."),
    (r"^(head\..*norm)\.scale$", r"\1.weight"),
]

AUTHORS = Layout(
    rules=[*_HGNET, *_RESNET, *_LITE_ENCODER, *_HYBRID_ENCODER, *_FUSION_BLOCKS, *_DECODER],
    parts=[
        # One 1x1 here, two there: conv2 gives the half that goes straight, conv1 the one that goes deep.
        (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?(?:stages\.\d\.0\.)?)conv2\.", r"\1split.", 0),
        (r"^(neck\.(?:top_down|bottom_up)\.(?:\d+\.)?(?:stages\.\d\.0\.)?)conv1\.", r"\1split.", 1),
        # The encoder with one map has no list of projections.
        (r"^neck\.input_proj\.0\.", "neck.input_proj.", 0),
        # One box head for all layers.
        (r"^head\.decoder\.box_heads\.\d+\.", "head.decoder.box_heads.0.", 0),
    ],
    recomputed=[
        r"^decoder\.(?:decoder\.)?(?:anchors|valid_mask|up|reg_scale)$",
        r"\.num_points_scale$",
        r"^encoder\.pos_embed\d*$",
    ],
)
