"""RepViT: depthwise token mixers of several branches that become one convolution, and 1x1 channel mixers.

Source: RepViT (arXiv 2307.09283), section 3: the block, the stem, the downsampling, squeeze-excite in every other
block. The tables were compared with timm's ``repvit_m*`` (Apache-2.0), whose checkpoints load here. Written anew.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, scaled_channels, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct, fold_norm
from efftasks.models.layers.squeeze_excite import SqueezeExcite
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["RepViT"]

_STRIDES = (4, 8, 16, 32)


class Variant(NamedTuple):
    """Channels and blocks of the stages of stride 4, 8, 16, 32."""

    channels: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]


VARIANTS: dict[str, Variant] = {
    "m0_9": Variant((48, 96, 192, 384), (2, 2, 14, 2)),
    "m1_0": Variant((56, 112, 224, 448), (2, 2, 14, 2)),
    "m1_1": Variant((64, 128, 256, 512), (2, 2, 12, 2)),
    "m1_5": Variant((64, 128, 256, 512), (4, 4, 24, 4)),
    "m2_3": Variant((80, 160, 320, 640), (6, 6, 34, 2)),
}


class TokenMixer(nn.Module):
    """The sum of a depthwise convolution with norm, a 1x1 depthwise convolution and the input, then a norm.

    Args:
        channels: of input and output.
        kernel_size: of the larger convolution; odd.
    """

    reads_parts = ("conv.conv", "conv1")  # folding

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(channels, channels, kernel_size, groups=channels, act=None)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.norm(self.conv(x) + self.conv1(x) + x)

    def fold(self) -> nn.Module:
        """One depthwise convolution with bias."""
        assert self.conv1.bias is not None
        dtype = self.conv1.weight.dtype
        # In float64, since the sum of the branches is folded once more before it is rounded.
        merged = fold_norm(copy.deepcopy(self.conv.conv).double(), self.conv.norm)
        assert merged.bias is not None
        margin = merged.kernel_size[0] // 2
        point = self.conv1.weight.detach().double() + 1  # the input itself is a 1x1 with weight 1
        merged.weight.data += F.pad(point, (margin, margin, margin, margin))
        merged.bias.data += self.conv1.bias.detach().double()
        return fold_norm(merged, self.norm).to(dtype).eval()


class ChannelMixer(nn.Module):
    """1x1 to twice the channels, GELU, 1x1 back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, 2 * channels, 1, act="gelu")
        self.conv2 = ConvNormAct(2 * channels, channels, 1, act=None)
        nn.init.zeros_(self.conv2.norm.weight)  # training starts at the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return x + self.conv2(self.conv1(x))


class Block(nn.Module):
    """Token mixer, optional squeeze-excite, channel mixer."""

    def __init__(self, channels: int, kernel_size: int, excite: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels, kernel_size)
        self.se = SqueezeExcite(channels, max(8, (channels // 4 + 4) // 8 * 8)) if excite else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.channel_mixer(self.se(self.token_mixer(x)))


class Downsample(nn.Module):
    """A block, a depthwise convolution of stride 2, a 1x1 to the new width, a channel mixer."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.pre_block = Block(in_channels, kernel_size, excite=False)
        self.spatial_downsample = ConvNormAct(
            in_channels, in_channels, kernel_size, stride=2, groups=in_channels, act=None
        )
        self.channel_downsample = ConvNormAct(in_channels, out_channels, 1, act=None)
        self.ffn = ChannelMixer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2)."""
        return self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))


class StageModule(nn.Module):
    """Halve the size (except in the first stage), then the blocks: the first, third, ... with squeeze-excite."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, kernel_size: int, downsample: bool) -> None:
        super().__init__()
        self.downsample = Downsample(in_channels, out_channels, kernel_size) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(Block(out_channels, kernel_size, excite=i % 2 == 0) for i in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2), or H, W in the first stage."""
        return self.blocks(self.downsample(x))


@MODELS.register_module()
class RepViT(StagedBackbone):
    """RepViT; stages beyond the last stride asked for are not built.

    Args:
        variant: m0_9, m1_0, m1_1, m1_5 or m2_3.
        out_strides: ascending choice of 4, 8, 16, 32.
        width: factor on all channels, rounded to multiples of 8.
        depth: factor on the blocks of every stage, of which at least one stays.
        kernel_size: of the depthwise convolutions, the downsampling ones included; odd.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's or this package's.
    """

    def __init__(
        self,
        variant: str = "m0_9",
        out_strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int = 3,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        self.out_indices = select_strides(_STRIDES, out_strides)
        published = VARIANTS[variant]
        channels = [scaled_channels(value, width) for value in published.channels]
        half = scaled_channels(published.channels[0] // 2, width)
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=ConvNormAct(3, half, 3, stride=2, act="gelu"),
                conv2=ConvNormAct(half, channels[0], 3, stride=2, act=None),
            )
        )
        self.stages = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            blocks = max(1, int(published.blocks[i] * depth + 0.5))
            self.stages.append(StageModule(channels[max(i - 1, 0)], channels[i], blocks, kernel_size, i > 0))
        self.finish(tuple(map(FeatureSpec, channels, _STRIDES)), frozen, weights, renamed_key)


def renamed_key(key: str) -> str | None:
    """The name in this package of a parameter of timm's ``repvit_m*``; None for its classifier."""
    if key.startswith("head."):
        return None
    return key.replace(".c.", ".conv.").replace(".bn.", ".norm.")
