"""MobileNetV4-Conv: universal inverted bottlenecks with batch norm and ReLU only.

Source: MobileNetV4 (arXiv 2404.10518), section 4 for the block and appendix D for the tables; the widths below were
compared with timm's ``mobilenetv4_conv_*`` (Apache-2.0), whose checkpoints load here. Written anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["FusedInvertedBottleneck", "MobileNetV4", "UniversalInvertedBottleneck"]

_STRIDES = (4, 8, 16, 32)


class UniversalInvertedBottleneck(nn.Module):
    """[depthwise] -> 1x1 expansion -> [depthwise] -> 1x1 projection, with a shortcut if shapes are equal.

    Both depthwise: "extra depthwise"; the middle one only: inverted bottleneck; the first only: like ConvNeXt;
    none: a feed-forward layer.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        start: kernel size of the first depthwise convolution, 0 for none.
        mid: kernel size of the middle depthwise convolution, 0 for none.
        stride: of the middle depthwise convolution, or else of the first.
        expansion: width between the 1x1 convolutions over ``in_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, start: int, mid: int, stride: int = 1, expansion: float = 4.0
    ) -> None:
        super().__init__()
        if stride > 1 and not (start or mid):
            raise ValueError(f"stride: got {stride} without a depthwise convolution to take it, allowed 1")
        hidden = round_channels(in_channels * expansion)
        self.shortcut = stride == 1 and in_channels == out_channels
        self.dw_start: nn.Module = nn.Identity()
        self.dw_mid: nn.Module = nn.Identity()
        if start:
            first = 1 if mid else stride
            self.dw_start = ConvNormAct(in_channels, in_channels, start, first, groups=in_channels, act=None)
        self.pw_exp = ConvNormAct(in_channels, hidden, 1)
        if mid:
            self.dw_mid = ConvNormAct(hidden, hidden, mid, stride, groups=hidden)
        self.pw_proj = ConvNormAct(hidden, out_channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        out = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return out + x if self.shortcut else out


class FusedInvertedBottleneck(nn.Module):
    """A dense expansion, a 1x1 projection; without a shortcut, since the tables use it with a stride only."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = round_channels(in_channels * expansion)
        self.expand = ConvNormAct(in_channels, hidden, kernel_size, stride)
        self.project = ConvNormAct(hidden, out_channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.project(self.expand(x))


@MODELS.register_module()
class MobileNetV4(StagedBackbone):
    """MobileNetV4-Conv; stages beyond the last stride asked for are not built.

    Args:
        variant: conv-s or conv-m.
        out_strides: ascending choice of 4, 8, 16, 32.
        width: factor on all channels (the stem is not made narrower, as in the published small networks).
        depth: factor on the number of blocks of the stages of inverted bottlenecks; added blocks repeat the last.
        kernel_size: of all depthwise convolutions, odd; None for the published mixture of 3 and 5.
        final_conv: widen the map of stride 32 to 960 channels by the 1x1 before the pooling of the classifier. It is of
            little use to a neck that reduces the channels again.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's or this package's.
    """

    def __init__(
        self,
        variant: str = "conv-s",
        out_strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int | None = None,
        final_conv: bool = False,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        self.out_indices = select_strides(_STRIDES, out_strides)
        if final_conv and out_strides[-1] != _STRIDES[-1]:
            raise ValueError(f"final_conv: got True with out_strides {tuple(out_strides)}, allowed only with stride 32")
        tables = [resized(table, depth, kernel_size) for table in VARIANTS[variant][: self.out_indices[-1] + 1]]
        channels = _STEM if width < 1 else round_channels(_STEM * width)
        self.stem = ConvNormAct(3, channels, 3, stride=2)
        self.stages = nn.ModuleList()
        specs = []
        for stride, table in zip(_STRIDES, tables, strict=False):  # the tables stop at the last stride of out_strides
            blocks: list[nn.Module] = []
            for row in table:
                out = round_channels(row.out * width)
                blocks.append(row.build(channels, out))
                channels = out
            self.stages.append(nn.Sequential(*blocks))
            specs.append(FeatureSpec(channels, stride))
        self.final: nn.Module = nn.Identity()
        if final_conv:
            out = round_channels(_FINAL * width)
            self.final = ConvNormAct(channels, out, 1)
            specs[-1] = FeatureSpec(out, _STRIDES[-1])
        self.finish(specs, frozen, weights, partial(_renamed_key, expected=set(self.state_dict())))

    def _maps(self, x: Tensor, start: int, count: int) -> tuple[Tensor, ...]:
        maps = super()._maps(x, start, count)
        return maps if count < len(self.out_indices) else (*maps[:-1], self.final(maps[-1]))


def resized(table: Sequence[_Row], depth: float, kernel_size: int | None) -> list[_Row]:
    """A stage with another depth and other depthwise kernels; stages of plain convolutions are not changed."""
    if not all(isinstance(row, _UIB) for row in table):
        return list(table)
    rows: list[_Row] = []
    for i in range(max(1, round(depth * len(table)))):
        row = table[min(i, len(table) - 1)]
        assert isinstance(row, _UIB)
        if kernel_size is not None:
            row = row._replace(start=row.start and kernel_size, mid=row.mid and kernel_size)
        rows.append(row)
    return rows


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor`` that is not below 90 % of ``channels`` (the rule of all MobileNets)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _renamed_key(key: str, expected: set[str]) -> str | None:
    """The name in this package of a parameter of timm's ``mobilenetv4_conv_*``; None for its classifier."""
    if key.startswith(("conv_head.", "norm_head.", "classifier.")):
        return None
    key = re.sub(r"^conv_stem\.", "stem.conv.", key)
    key = re.sub(r"^bn1\.", "stem.norm.", key)
    key = re.sub(r"^blocks\.4\.0\.", "final.", key)
    key = re.sub(r"^blocks\.", "stages.", key)
    key = key.replace(".conv_exp.", ".expand.conv.").replace(".conv_pwl.", ".project.conv.")
    key = key.replace(".bn2.", ".project.norm.").replace(".bn.", ".norm.")
    # bn1 is the only norm of a plain convolution, and the first of a fused bottleneck.
    plain, fused = key.replace(".bn1.", ".norm."), key.replace(".bn1.", ".expand.norm.")
    return fused if fused in expected else plain


class _Row(Protocol):
    @property
    def out(self) -> int: ...

    def build(self, in_channels: int, out_channels: int) -> nn.Module: ...


class _Conv(NamedTuple):
    """A row of the tables: plain convolution."""

    kernel: int
    stride: int
    out: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return ConvNormAct(in_channels, out_channels, self.kernel, self.stride)


class _Fused(NamedTuple):
    """A row of the tables: fused inverted bottleneck."""

    kernel: int
    stride: int
    expansion: float
    out: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return FusedInvertedBottleneck(in_channels, out_channels, self.kernel, self.stride, self.expansion)


class _UIB(NamedTuple):
    """A row of the tables: universal inverted bottleneck."""

    start: int
    mid: int
    stride: int
    expansion: float
    out: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return UniversalInvertedBottleneck(in_channels, out_channels, self.start, self.mid, self.stride, self.expansion)


_STEM = 32
_FINAL = 960

# One tuple for each of the strides 4, 8, 16, 32.
VARIANTS: dict[str, tuple[Sequence[_Row], ...]] = {
    "conv-s": (
        (_Conv(3, 2, 32), _Conv(1, 1, 32)),
        (_Conv(3, 2, 96), _Conv(1, 1, 64)),
        (_UIB(5, 5, 2, 3, 96), *[_UIB(0, 3, 1, 2, 96)] * 4, _UIB(3, 0, 1, 4, 96)),
        (
            _UIB(3, 3, 2, 6, 128),
            _UIB(5, 5, 1, 4, 128),
            _UIB(0, 5, 1, 4, 128),
            _UIB(0, 5, 1, 3, 128),
            *[_UIB(0, 3, 1, 4, 128)] * 2,
        ),
    ),
    "conv-m": (
        (_Fused(3, 2, 4, 48),),
        (_UIB(3, 5, 2, 4, 80), _UIB(3, 3, 1, 2, 80)),
        (
            _UIB(3, 5, 2, 6, 160),
            *[_UIB(3, 3, 1, 4, 160)] * 2,
            _UIB(3, 5, 1, 4, 160),
            _UIB(3, 3, 1, 4, 160),
            _UIB(3, 0, 1, 4, 160),
            _UIB(0, 0, 1, 2, 160),
            _UIB(3, 0, 1, 4, 160),
        ),
        (
            _UIB(5, 5, 2, 6, 256),
            _UIB(5, 5, 1, 4, 256),
            *[_UIB(3, 5, 1, 4, 256)] * 2,
            _UIB(0, 0, 1, 4, 256),
            _UIB(3, 0, 1, 4, 256),
            _UIB(3, 5, 1, 2, 256),
            _UIB(5, 5, 1, 4, 256),
            *[_UIB(0, 0, 1, 4, 256)] * 2,
            _UIB(5, 0, 1, 2, 256),
        ),
    ),
}
