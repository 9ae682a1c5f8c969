"""SeaFormer: inverted bottlenecks, and attention along each axis of coarse maps, squeezed along the other axis.

Source: SeaFormer (arXiv 2301.13156), section 3.1 (overall architecture), 3.2 (squeeze-enhanced axial attention, its
positional embeddings and its detail enhancement kernel) and the table of variants. The numbers of the variants and the
order of layers were compared with the authors' code (fudan-zvg/SeaFormer, Apache-2.0), whose checkpoints load here.
Written anew.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, scaled_channels, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct, build_activation, fold_norm
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["AxisAttention", "SeaAttention", "SeaFormer"]

_STRIDES = (4, 8, 16, 32, 64)
_KERNELS = (3, 5, 3, 5, 3)  # of the bottlenecks of these stages
_BLOCKS = (2, 2, 2, 1, 1)  # bottlenecks of these stages
_POSITIONS = 16  # length of the positional embedding of an axis, which is resized to that of the axis


class Variant(NamedTuple):
    """One of the published networks.

    Attributes:
        stem: channels of stride 2.
        channels: of the stages of stride 4 to 64.
        expansions: of the stem's bottleneck, and of the first bottleneck of each stage.
        repeated: expansion of a stage's further bottlenecks.
        heads: of the attention.
        attentions: blocks of attention in each stage that attends.
        key_dims: channels of a head's queries, one number for each of the last stages, which attend.
        mlp_ratios: width of the MLP over that of the stage, for the same stages.
    """

    stem: int
    channels: tuple[int, int, int, int, int]
    expansions: tuple[int, int, int, int, int, int]
    repeated: int
    heads: int
    attentions: int
    key_dims: tuple[int, ...]
    mlp_ratios: tuple[int, ...]


VARIANTS: dict[str, Variant] = {
    "tiny": Variant(16, (16, 32, 64, 128, 160), (1, 4, 3, 3, 3, 6), 3, 4, 2, (16, 24), (2, 4)),
    "small": Variant(16, (24, 48, 96, 160, 192), (1, 4, 3, 3, 4, 6), 3, 6, 3, (16, 24), (2, 4)),
    "base": Variant(16, (32, 64, 128, 192, 256), (1, 4, 3, 3, 4, 6), 3, 8, 4, (16, 24), (2, 4)),
    "large": Variant(32, (64, 128, 192, 256, 320), (3, 4, 4, 4, 4, 6), 4, 8, 3, (16, 20, 24), (2, 4, 6)),
}


class InvertedBottleneck(nn.Module):
    """A 1x1 up (none where the expansion is 1), a depthwise convolution, a 1x1 down; with a shortcut where it fits.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: of the depthwise convolution; odd.
        stride: of the depthwise convolution.
        expansion: width of the depthwise convolution over ``in_channels``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        widen = [ConvNormAct(in_channels, hidden, 1)] if expansion != 1 else []
        self.layers = nn.Sequential(
            *widen,
            ConvNormAct(hidden, hidden, kernel_size, stride, groups=hidden),
            ConvNormAct(hidden, out_channels, 1, act=None),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        out = self.layers(x)
        return x + out if self.shortcut else out


class AxisAttention(nn.Module):
    """Self-attention along one axis, after the other was squeezed: section 3.2.

    Queries and keys get a positional embedding, which is resized to the length of the axis; ReLU6 and a 1x1 follow. The
    values are twice as wide as queries and keys.

    Args:
        heads: number of heads.
        key_dim: channels of a head's queries and keys.
    """

    def __init__(self, heads: int, key_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = key_dim**-0.5
        inner = heads * key_dim
        self.widths = (inner, inner, 2 * inner)
        self.query_position = nn.Parameter(torch.randn(1, inner, _POSITIONS))
        self.key_position = nn.Parameter(torch.randn(1, inner, _POSITIONS))
        self.act = build_activation("relu6", inplace=False)
        self.encode = ConvNormAct(2 * inner, 2 * inner, 1, act=None)
        nn.init.zeros_(self.encode.norm.weight)  # training starts without attention

    def forward(self, x: Tensor) -> Tensor:
        """Queries, keys and values of an axis (B, 4 * heads * key_dim, N) -> (B, 2 * heads * key_dim, N, 1)."""
        query, key, value = x.split(self.widths, 1)
        query, key = self._with_position(query, self.query_position), self._with_position(key, self.key_position)
        query, key, value = (part.unflatten(1, (self.heads, -1)) for part in (query, key, value))
        weights = (self.scale * query.transpose(2, 3) @ key).softmax(-1)  # (B, heads, N, N)
        mixed = (value @ weights.transpose(2, 3)).flatten(1, 2)
        return self.encode(self.act(mixed.unsqueeze(3)))

    @staticmethod
    def _with_position(x: Tensor, position: Tensor) -> Tensor:
        return x + F.interpolate(position, x.shape[2:], mode="linear", align_corners=False)


class Projections(nn.Module):
    """Queries, keys and values of every pixel, by three 1x1 convolutions with their norms, one above the other."""

    reads_parts = ("query.conv", "key.conv", "value.conv")  # folding

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.query = ConvNormAct(channels, inner, 1, act=None)
        self.key = ConvNormAct(channels, inner, 1, act=None)
        self.value = ConvNormAct(channels, 2 * inner, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 4 * inner, H, W)."""
        return torch.cat([self.query(x), self.key(x), self.value(x)], 1)

    def fold(self) -> nn.Module:
        """One convolution with bias."""
        folded = [fold_norm(part.conv, part.norm) for part in (self.query, self.key, self.value)]
        weight = torch.cat([conv.weight.detach() for conv in folded])
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device=weight.device, dtype=weight.dtype)
        conv.weight.data = weight
        conv.bias = nn.Parameter(torch.cat([conv.bias.detach() for conv in folded if conv.bias is not None]))
        return conv.eval()


class SeaAttention(nn.Module):
    """Squeeze-enhanced axial attention: both axes gate the detail features of convolutions: section 3.2.

    Args:
        channels: of input and output.
        heads: number of heads.
        key_dim: channels of a head's queries and keys.
    """

    def __init__(self, channels: int, heads: int, key_dim: int) -> None:
        super().__init__()
        inner = heads * key_dim
        self.inner = inner
        self.qkv = Projections(channels, inner)
        self.detail = nn.Sequential(
            ConvNormAct(4 * inner, 4 * inner, 3, groups=4 * inner, act="relu6"),
            ConvNormAct(4 * inner, channels, 1, act=None),
        )
        self.rows = AxisAttention(heads, key_dim)
        self.columns = AxisAttention(heads, key_dim)
        self.act = build_activation("relu6", inplace=False)
        self.gate = ConvNormAct(2 * inner, channels, 1, act=None)
        nn.init.zeros_(self.gate.norm.weight)  # training starts with gates of 0.5

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        qkv = self.qkv(x)
        rows = self.rows(qkv.mean(3))  # (B, 2 * inner, H, 1)
        columns = self.columns(qkv.mean(2)).transpose(2, 3)  # (B, 2 * inner, 1, W)
        value = qkv[:, 2 * self.inner :]
        return F.hardsigmoid(self.gate(self.act(value + (rows + columns)))) * self.detail(qkv)


class ConvMLP(nn.Module):
    """A 1x1 up, a depthwise 3x3, ReLU6, a 1x1 down.

    Args:
        channels: of input and output.
        hidden: between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = ConvNormAct(channels, hidden, 1, act=None)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = build_activation("relu6", inplace=False)
        self.project = ConvNormAct(hidden, channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.project(self.act(self.depthwise(self.expand(x))))


class SeaBlock(nn.Module):
    """Attention and MLP, each added to its input.

    Args:
        channels: of input and output.
        heads: of the attention.
        key_dim: channels of a head's queries and keys.
        hidden: of the MLP.
        drop_path: stochastic depth: the probability that a branch is dropped for an image in training.
    """

    def __init__(self, channels: int, heads: int, key_dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.attention = SeaAttention(channels, heads, key_dim)
        self.mlp = ConvMLP(channels, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        x = x + self.drop_path(self.attention(x))
        return x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """Inverted bottlenecks, the first with stride 2, then blocks of attention in the stages that attend."""

    def __init__(self, bottlenecks: Sequence[InvertedBottleneck], blocks: Sequence[SeaBlock]) -> None:
        super().__init__()
        self.bottlenecks = nn.Sequential(*bottlenecks)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2)."""
        return self.blocks(self.bottlenecks(x))


@MODELS.register_module()
class SeaFormer(StagedBackbone):
    """SeaFormer's network up to its fusions, which are ``SeaFormerHead``; stages beyond the last stride are not built.

    The paper's spatial branch begins at the map of stride 8. Strides 32 and 64, in ``large`` 16 too, have attention.
    Training needs more than one position on the squeezed axis of the batch, since a batch norm follows.

    Args:
        variant: tiny, small, base or large.
        out_strides: ascending choice of 4, 8, 16, 32, 64; None for those of the published head: 8 and the stages with
            attention.
        width: factor on all channels, rounded to multiples of 8, and on the heads of the attention.
        depth: factor on the bottlenecks and the attentions of every stage, of which at least one stays.
        kernel_size: of the bottlenecks' depthwise convolutions, odd; None for the published mixture of 3 and 5.
        drop_path: stochastic depth: the probability that a branch of the last attention block of a stage is dropped for
            an image in training; it grows from 0 in the first one.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: the authors' (ImageNet's or a whole segmentor) or this package's.
    """

    def __init__(
        self,
        variant: str = "tiny",
        out_strides: Sequence[int] | None = None,
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int | None = None,
        drop_path: float = 0.1,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        published = VARIANTS[variant]
        attending = len(published.key_dims)
        if out_strides is None:
            out_strides = (8, *_STRIDES[-attending:])
        self.out_indices = select_strides(_STRIDES, out_strides)
        stem = scaled_channels(published.stem, width)
        channels = [scaled_channels(value, width) for value in published.channels]
        self.stem = nn.Sequential(
            OrderedDict(
                conv=ConvNormAct(3, stem, 3, stride=2),
                bottleneck=InvertedBottleneck(stem, stem, kernel_size or 3, 1, published.expansions[0]),
            )
        )
        self.stages = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            out, before = channels[i], channels[i - 1] if i else stem
            kernel = kernel_size or _KERNELS[i]
            bottlenecks = [InvertedBottleneck(before, out, kernel, 2, published.expansions[i + 1])]
            for _ in range(1, _repeats(_BLOCKS[i], depth)):
                bottlenecks.append(InvertedBottleneck(out, out, kernel, 1, published.repeated))
            blocks = _attention_blocks(published, i, out, width, depth, drop_path)
            self.stages.append(Stage(bottlenecks, blocks))
        rename = partial(renamed_key, first=len(_STRIDES) - attending)
        self.finish(tuple(map(FeatureSpec, channels, _STRIDES)), frozen, weights, rename)


def _repeats(count: int, depth: float) -> int:
    return max(1, int(count * depth + 0.5))


def _attention_blocks(
    published: Variant, stage: int, channels: int, width: float, depth: float, drop_path: float
) -> list[SeaBlock]:
    """The attention blocks of a stage, counted from 0; empty for stages without attention."""
    i = stage - (len(_STRIDES) - len(published.key_dims))
    if i < 0:
        return []
    heads = max(1, int(published.heads * width + 0.5))
    hidden = published.mlp_ratios[i] * channels
    count = _repeats(published.attentions, depth)
    rates = [drop_path * j / max(1, count - 1) for j in range(count)]
    return [SeaBlock(channels, heads, published.key_dims[i], hidden, rate) for rate in rates]


_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\.c\.", ".conv."),
        (r"\.bn\.", ".norm."),
        (r"^smb1\.stem_block\.0\.", "stem.conv."),
        (r"^smb1\.layer1\.", "stem.bottleneck."),
        # Activations without parameters are counted there.
        (r"^(stem\.bottleneck|smb\d\.layer\d+)\.conv\.0\.", r"\1.layers.0."),
        (r"^(stem\.bottleneck|smb\d\.layer\d+)\.conv\.2\.", r"\1.layers.1."),
        (r"^(stem\.bottleneck|smb\d\.layer\d+)\.conv\.4\.", r"\1.layers.2."),
        (r"\.attn\.to_q\.", ".attention.qkv.query."),
        (r"\.attn\.to_k\.", ".attention.qkv.key."),
        (r"\.attn\.to_v\.", ".attention.qkv.value."),
        (r"\.attn\.dwconv\.", ".attention.detail.0."),
        (r"\.attn\.pwconv\.", ".attention.detail.1."),
        (r"\.attn\.proj\.1\.", ".attention.gate."),
        (r"\.attn\.proj_encode_(row|column)\.1\.", r".attention.\1s.encode."),
        (r"\.attn\.pos_emb_(row|column)q\.pos_embed$", r".attention.\1s.query_position"),
        (r"\.attn\.pos_emb_(row|column)k\.pos_embed$", r".attention.\1s.key_position"),
        (r"\.mlp\.fc1\.", ".mlp.expand."),
        (r"\.mlp\.dwconv\.", ".mlp.depthwise."),
        (r"\.mlp\.fc2\.", ".mlp.project."),
    )
)


def renamed_key(key: str, first: int) -> str | None:
    """The name in this package of a parameter of the authors' network; None for its classifier.

    Args:
        key: the name there.
        first: the first stage with attention, counted from 0; the authors number these stages separately.
    """
    if key.startswith("linear."):
        return None
    for pattern, name in _RENAMES:
        key = pattern.sub(name, key)
    if match := re.match(r"smb(\d)\.layer(\d+)\.", key):
        stage, block = int(match[1]) - 1, int(match[2]) - 1
        # The first stage there has the stem's bottleneck too.
        key = f"stages.{stage}.bottlenecks.{block - (stage == 0)}.{key[match.end() :]}"
    elif match := re.match(r"trans(\d)\.transformer_blocks\.", key):
        key = f"stages.{first + int(match[1]) - 1}.blocks.{key[match.end() :]}"
    return key
