"""Split, transform, merge: bottlenecks with a grouped 3x3, their widths by one rule.

Sources: ResNeXt (arXiv 1611.05431, section 3) for the block, whose parallel paths are one grouped convolution (figure
3c); RegNet (arXiv 2003.13678, section 3.3, equations 2 to 4) for the rule that gives widths, and section 5 for the
published networks (X; Y adds squeeze-excite). Written anew; timm's ``regnetx_*`` and ``regnety_*`` checkpoints load.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import Backbone, check_scale, load_weights, select_strides
from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["RegNet", "Stage", "regnet_stages"]

_STEM = 32
_STRIDES = (4, 8, 16, 32)


class Stage(NamedTuple):
    """Blocks of one width."""

    width: int
    blocks: int
    group_width: int


def regnet_stages(start: int, slope: float, factor: float, depth: int, group_width: int) -> tuple[Stage, ...]:
    """Widths that grow linearly with depth, quantised to powers of a factor.

    Block j would have ``start + slope * j`` channels (equation 2). That is rounded to ``start * factor ** s`` with
    a whole s (equations 3, 4) and to a multiple of 8; blocks of one width are a stage, whose width then becomes a
    multiple of its group width.

    Args:
        start: ``w_0``, of the first block.
        slope: ``w_a``, growth a block.
        factor: ``w_m``, between stages.
        depth: blocks in all.
        group_width: channels of a group of the 3x3.
    """
    widths = []
    for j in range(depth):
        step = round(math.log((start + slope * j) / start) / math.log(factor))
        widths.append(round(start * factor**step / 8) * 8)
    return tuple(_compatible(width, len(list(same)), group_width) for width, same in groupby(widths))


def _compatible(width: int, blocks: int, group_width: int) -> Stage:
    """A group width is at most the width, and the width its nearest multiple; of two as near, the even one."""
    group_width = min(group_width, width)
    return Stage(max(1, round(width / group_width)) * group_width, blocks, group_width)


class SqueezeExcite(nn.Module):
    """Every channel times a gate in (0, 1) that a few hidden units compute from the means of all."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """1x1 (split), grouped 3x3 (transform), 1x1 (merge), added to the input; all of one width.

    Args:
        in_channels: channels of the input.
        out_channels: of the three convolutions.
        group_width: channels of a group of the 3x3.
        stride: taken by the 3x3 and by the 1x1 of the shortcut.
        kernel_size: of the grouped convolution.
        squeeze: hidden units of squeeze-excite over ``in_channels``; 0 for none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, group_width: int, stride: int, kernel_size: int, squeeze: float
    ) -> None:
        super().__init__()
        groups = out_channels // group_width
        self.conv1 = ConvNormAct(in_channels, out_channels, 1)
        self.conv2 = ConvNormAct(out_channels, out_channels, kernel_size, stride, groups=groups)
        self.se = SqueezeExcite(out_channels, round(in_channels * squeeze)) if squeeze else nn.Identity()
        self.conv3 = ConvNormAct(out_channels, out_channels, 1, act=None)
        changes = in_channels != out_channels or stride != 1
        self.downsample = ConvNormAct(in_channels, out_channels, 1, stride, act=None) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return F.relu(self.conv3(self.se(self.conv2(self.conv1(x)))) + self.downsample(x))


@MODELS.register_module()
class RegNet(Backbone):
    """RegNet X and Y, and what else the block and the rule make; stages beyond the last stride asked for are not built.

    Args:
        variant: x_002 to x_032, y_002 to y_032: the published networks of 200 million to 3.2 billion multiply-adds.
        stages: (width, blocks, group width) of the strides 4, 8, 16 and 32, instead of the variant's.
        out_strides: ascending choice of 4, 8, 16, 32.
        width: factor on the widths; each stays a multiple of its group width.
        depth: factor on the blocks of every stage, of which at least one stays.
        group_width: of all stages, instead of the variant's: 1 is depthwise, a large one dense.
        kernel_size: of the grouped convolutions, odd.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's or this package's.
    """

    def __init__(
        self,
        variant: str = "x_002",
        stages: Sequence[Sequence[int]] | None = None,
        out_strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        depth: float = 1.0,
        group_width: int | None = None,
        kernel_size: int = 3,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        if group_width is not None and group_width < 1:
            raise ValueError(f"group_width: got {group_width}, allowed from 1")
        check_scale(width, depth, kernel_size)
        self.out_indices = select_strides(_STRIDES, out_strides)
        table = regnet_stages(*VARIANTS[variant]) if stages is None else tuple(Stage(*stage) for stage in stages)
        if len(table) != len(_STRIDES):
            raise ValueError(f"stages: got {len(table)}, expected {len(_STRIDES)}: one for each of {_STRIDES}")
        table = tuple(
            _compatible(round(s.width * width), max(1, round(s.blocks * depth)), group_width or s.group_width)
            for s in table[: self.out_indices[-1] + 1]
        )
        squeeze = _SQUEEZE if variant.startswith("y") else 0.0
        self.stem = ConvNormAct(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = _STEM
        for stage in table:
            blocks = []
            for i in range(stage.blocks):
                blocks.append(Bottleneck(channels, stage.width, stage.group_width, 1 if i else 2, kernel_size, squeeze))
                channels = stage.width
            self.stages.append(nn.Sequential(*blocks))
        self.specs = tuple(FeatureSpec(table[i].width, _STRIDES[i]) for i in self.out_indices)
        self.freeze(frozen)
        if weights is not None:
            load_weights(self, weights, own_key)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[i] for i in self.out_indices)


def own_key(key: str) -> str | None:
    """The name here for a name of timm's ``regnetx_*`` and ``regnety_*``; None for their classifier."""
    if key.startswith("head."):
        return None
    key = re.sub(r"^s(\d)\.b(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.{int(m[2]) - 1}.", key)
    return key.replace(".bn.", ".norm.")


_SQUEEZE = 0.25

# start, slope, factor, depth, group width.
VARIANTS: dict[str, tuple[int, float, float, int, int]] = {
    "x_002": (24, 36.44, 2.49, 13, 8),
    "x_004": (24, 24.48, 2.54, 22, 16),
    "x_006": (48, 36.97, 2.24, 16, 24),
    "x_008": (56, 35.73, 2.28, 16, 16),
    "x_016": (80, 34.01, 2.25, 18, 24),
    "x_032": (88, 26.31, 2.25, 25, 48),
    "y_002": (24, 36.44, 2.49, 13, 8),
    "y_004": (48, 27.89, 2.09, 16, 8),
    "y_006": (48, 32.54, 2.32, 15, 16),
    "y_008": (56, 38.84, 2.4, 14, 16),
    "y_016": (48, 20.71, 2.65, 27, 24),
    "y_032": (80, 42.63, 2.66, 21, 24),
}
