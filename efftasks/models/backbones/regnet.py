"""RegNet X and Y: bottlenecks that split, transform and merge by a grouped 3x3; one rule gives all widths and depths.

Sources: ResNeXt (arXiv 1611.05431, section 3: the aggregated transforms, and their equal form as one grouped
convolution) for the block; RegNet (arXiv 2003.13678, section 3.3, equations 2 to 4) for the widths; squeeze-excite in
the Y variants (arXiv 1709.01507, section 3). The tables were compared with timm's ``regnetx_*`` and ``regnety_*``
(Apache-2.0), whose checkpoints load here. Written anew.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.squeeze_excite import SqueezeExcite
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["Bottleneck", "RegNet", "Stage", "regnet_stages"]

_STRIDES = (4, 8, 16, 32)
_STEM = 32
_QUANTUM = 8
_DEFAULT = "x_002"


class Stage(NamedTuple):
    """Channels of a stage, its number of blocks, and the channels of one group of its grouped convolutions."""

    width: int
    blocks: int
    group_width: int


def regnet_stages(
    width_start: int, width_slope: float, width_factor: float, depth: int, group_width: int, quantum: int = _QUANTUM
) -> tuple[Stage, ...]:
    """The quantized linear rule: widths that grow linearly from block to block, rounded to a few stages.

    Args:
        width_start: w_0, the width of the first block; a multiple of ``quantum``.
        width_slope: w_a, what each block adds before rounding.
        width_factor: w_m, from one stage to the next, about.
        depth: number of blocks in all.
        group_width: channels of one group; a stage that is narrower has a single group.
        quantum: widths are multiples of it before they are made multiples of the group width.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    for name, value in (("depth", depth), ("group_width", group_width), ("quantum", quantum)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, allowed a positive number")
    if width_start < 1 or width_start % quantum:
        raise ValueError(f"width_start: got {width_start}, allowed positive multiples of {quantum}")
    if width_slope < 0:
        raise ValueError(f"width_slope: got {width_slope}, allowed a number of at least 0")
    if width_factor <= 1:
        raise ValueError(f"width_factor: got {width_factor}, allowed a number above 1")
    blocks: dict[int, int] = {}  # by width, which never falls
    for j in range(depth):
        linear = width_start + width_slope * j
        power = round(math.log(linear / width_start) / math.log(width_factor))
        width = round(width_start * width_factor**power / quantum) * quantum
        blocks[width] = blocks.get(width, 0) + 1
    return tuple(_whole_groups(width, count, group_width) for width, count in blocks.items())


def _whole_groups(width: float, blocks: int, group_width: int) -> Stage:
    """The stage whose width is nearest to ``width`` among the multiples of its group width."""
    group_width = min(group_width, int(width))
    # Python rounds ties to even, as the published networks do: x_004 has 24 groups of 16 for a width of 392.
    return Stage(round(width / group_width) * group_width, blocks, group_width)


class Variant(NamedTuple):
    """The arguments of :func:`regnet_stages`, and the ratio of squeeze-excite."""

    width_start: int
    width_slope: float
    width_factor: float
    depth: int
    group_width: int
    se_ratio: float


# The number is that of the published network's multiplications at 224 px, in units of 100 million.
VARIANTS: dict[str, Variant] = {
    "x_002": Variant(24, 36.44, 2.49, 13, 8, 0.0),
    "x_004": Variant(24, 24.48, 2.54, 22, 16, 0.0),
    "x_006": Variant(48, 36.97, 2.24, 16, 24, 0.0),
    "x_008": Variant(56, 35.73, 2.28, 16, 16, 0.0),
    "x_016": Variant(80, 34.01, 2.25, 18, 24, 0.0),
    "x_032": Variant(88, 26.31, 2.25, 25, 48, 0.0),
    "y_002": Variant(24, 36.44, 2.49, 13, 8, 0.25),
    "y_004": Variant(48, 27.89, 2.09, 16, 8, 0.25),
    "y_006": Variant(48, 32.54, 2.32, 15, 16, 0.25),
    "y_008": Variant(56, 38.84, 2.4, 14, 16, 0.25),
    "y_016": Variant(48, 20.71, 2.65, 27, 24, 0.25),
    "y_032": Variant(80, 42.63, 2.66, 21, 24, 0.25),
}


class Bottleneck(nn.Module):
    """1x1, grouped convolution, [squeeze-excite], 1x1, all of one width, beside a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of all that follows; a multiple of ``group_width``.
        stride: of the grouped convolution.
        group_width: channels of one group; ``out_channels`` for a dense convolution.
        kernel_size: of the grouped convolution, odd.
        se_ratio: hidden units of squeeze-excite over ``in_channels``; 0 for none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, group_width: int, kernel_size: int, se_ratio: float
    ) -> None:
        super().__init__()
        groups = out_channels // group_width
        self.conv1 = ConvNormAct(in_channels, out_channels, 1)
        self.conv2 = ConvNormAct(out_channels, out_channels, kernel_size, stride, groups=groups)
        self.se: nn.Module = nn.Identity()
        if se_ratio:
            self.se = SqueezeExcite(out_channels, max(1, round(in_channels * se_ratio)))
        self.conv3 = ConvNormAct(out_channels, out_channels, 1, act=None)
        nn.init.zeros_(self.conv3.norm.weight)  # training starts at the shortcuts
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvNormAct(in_channels, out_channels, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return F.relu(self.conv3(self.se(self.conv2(self.conv1(x)))) + self.shortcut(x))


@MODELS.register_module()
class RegNet(StagedBackbone):
    """RegNet; stages beyond the last stride asked for are not built.

    Args:
        variant: x_002, x_004, x_006, x_008, x_016, x_032, or y_ for x_ with squeeze-excite. Without a variant and
            without ``stages``, x_002.
        stages: instead of a variant: (width, blocks, group width) for each of the strides 4, 8, 16, 32, or for the
            first of them; :func:`regnet_stages` makes such.
        out_strides: ascending choice of 4, 8, 16, 32.
        width: factor on the widths of the stages, rounded to multiples of the group width, or to multiples of 8 where
            there is a single group. The stem keeps its 32 channels, as in the published networks of all sizes.
        depth: factor on the blocks of every stage, of which at least one stays.
        group_width: channels of one group in all stages, to which their widths are then rounded; 1 for depthwise
            convolutions, at least the width of a stage for dense ones there. None for the group widths as published.
        kernel_size: of the grouped convolutions, odd.
        se_ratio: hidden units of squeeze-excite over the channels of a block's input, 0 for none; None for the
            variant's (0.25 for y, 0 for x), 0 with ``stages``.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's or this package's.
    """

    def __init__(
        self,
        variant: str | None = None,
        stages: Sequence[Sequence[int]] | None = None,
        out_strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        depth: float = 1.0,
        group_width: int | None = None,
        kernel_size: int = 3,
        se_ratio: float | None = None,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        table, published = _table(variant, stages)
        se_ratio = published if se_ratio is None else se_ratio
        check_scale(width, depth, kernel_size)
        if group_width is not None and group_width < 1:
            raise ValueError(f"group_width: got {group_width}, allowed a positive number")
        if not 0 <= se_ratio <= 1:
            raise ValueError(f"se_ratio: got {se_ratio}, allowed 0 to 1")
        self.out_indices = select_strides(_STRIDES[: len(table)], out_strides)
        table = tuple(_resized(stage, width, depth, group_width) for stage in table[: self.out_indices[-1] + 1])
        self.stem = ConvNormAct(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = _STEM
        for stage in table:
            blocks = []
            for i in range(stage.blocks):
                stride = 1 if i else 2
                blocks.append(Bottleneck(channels, stage.width, stride, stage.group_width, kernel_size, se_ratio))
                channels = stage.width
            self.stages.append(nn.Sequential(*blocks))
        specs = [FeatureSpec(stage.width, stride) for stage, stride in zip(table, _STRIDES, strict=False)]
        self.finish(specs, frozen, weights, renamed_key)


def _table(variant: str | None, stages: Sequence[Sequence[int]] | None) -> tuple[tuple[Stage, ...], float]:
    """The stages of a variant or as given, and the published ratio of squeeze-excite."""
    if stages is None:
        variant = _DEFAULT if variant is None else variant
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        row = VARIANTS[variant]
        return regnet_stages(*row[:5]), row.se_ratio
    if variant is not None:
        raise ValueError(f"stages: got {stages!r} beside the variant {variant!r}, allowed one of the two")
    if not 1 <= len(stages) <= len(_STRIDES) or any(len(row) != 3 or min(row) < 1 for row in stages):
        raise ValueError(f"stages: got {stages!r}, allowed 1 to 4 of (width, blocks, group width), all positive")
    table = tuple(Stage(*row) for row in stages)
    for stage in table:
        if stage.width % min(stage.width, stage.group_width):
            raise ValueError(f"stages: got {stage}, allowed a width that is a multiple of the group width, or below it")
    return table, 0.0


def _resized(stage: Stage, width: float, depth: float, group_width: int | None) -> Stage:
    """A stage with another width and depth, and with other groups if ``group_width`` is given."""
    group_width = stage.group_width if group_width is None else group_width
    blocks = max(1, round(stage.blocks * depth))
    channels = stage.width * width
    if group_width < channels:
        return _whole_groups(channels, blocks, group_width)
    dense = stage.width if width == 1 else max(_QUANTUM, round(channels / _QUANTUM) * _QUANTUM)
    return Stage(dense, blocks, dense)


def renamed_key(key: str) -> str | None:
    """The name in this package of a parameter of timm's ``regnetx_*`` and ``regnety_*``; None for their classifier."""
    if key.startswith("head."):
        return None
    key = re.sub(r"^s(\d+)\.b(\d+)\.", lambda match: f"stages.{int(match[1]) - 1}.{int(match[2]) - 1}.", key)
    return key.replace(".bn.", ".norm.").replace(".downsample.", ".shortcut.")
