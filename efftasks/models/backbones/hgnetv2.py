"""HGNetV2: dense 3x3 convolutions early, light 5x5 ones late; blocks concatenate the outputs of all their layers.

Source: PP-HGNetV2 of PaddleClas and the backbone of D-FINE (arXiv 2410.13842), both Apache-2.0; the tables below are
their published configurations. Written anew; the module names follow the published weights, so that the checkpoints of
timm (``hgnetv2_b*``) and D-FINE (``PPHGNetV2_B*``) load after renaming ``bn`` to ``norm``.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, scaled_channels, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct, fold_norm_last, split_inputs
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["HGNetV2"]


class Stage(NamedTuple):
    """One stage: width inside and after its blocks, the number of blocks, and their layers."""

    hidden: int
    out: int
    blocks: int
    light: bool
    kernel: int
    layers: int


class Variant(NamedTuple):
    """One row of the published tables. Stage i has stride 4 * 2**i."""

    stem: tuple[int, int]
    stages: tuple[Stage, ...]
    affine: bool


class LearnableAffine(nn.Module):
    """One learnable scale and one shift for a whole map (``lab`` in the published weights)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        return self.scale * x + self.bias


class Clamp(nn.Module):
    """``clamp`` with fixed bounds; a bound of None is open."""

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        return torch.clamp(x, self.low, self.high)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"


class ConvNormReLUAffine(ConvNormAct):
    """Convolution, batch norm, ReLU, learnable affine."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups)
        self.lab = LearnableAffine()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.lab(super().forward(x))

    def fold(self) -> nn.Module:
        """A convolution and a clamp: ``s * relu(z) + b`` is ``max(s * z + b, b)`` for s >= 0, and ``min`` for s < 0."""
        scale, bias = self.lab.scale.item(), self.lab.bias.item()
        conv = fold_norm_last(self.conv, self.norm, scale, bias)
        act = Clamp(low=bias) if scale >= 0 else Clamp(high=bias)
        return nn.Sequential(OrderedDict(conv=conv, act=act)).eval()


class LightConv(nn.Module):
    """1x1 without activation, then depthwise."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 1, act=None)
        self.conv2 = _conv(out_channels, out_channels, kernel_size, groups=out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return self.conv2(self.conv1(x))


class Stem(nn.Module):
    """Stride 4: a 3x3, then two 2x2 beside a 2x2 max pooling, a 3x3 over both, and a 1x1."""

    reads_parts = ("stem1.conv", "stem3.conv", "stem4.conv")  # folding

    def __init__(self, hidden: int, out: int, affine: bool) -> None:
        super().__init__()
        self.stem1 = _conv(3, hidden, 3, stride=2, affine=affine)
        self.stem2a = _conv(hidden, hidden // 2, 2, affine=affine)
        self.stem2b = _conv(hidden // 2, hidden, 2, affine=affine)
        self.pool = nn.MaxPool2d(2, stride=1)
        self.stem3 = _conv(2 * hidden, hidden, 3, stride=2, affine=affine)
        self.stem4 = _conv(hidden, out, 1, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, out, H / 4, W / 4)."""
        # 2x2 windows keep the size with one row and column of zeros below and right.
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        fine = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat((self.pool(x), fine), dim=1)))

    def fold(self) -> nn.Module:
        """The same without the concatenation."""
        return FoldedStem(self).eval()


class FoldedStem(nn.Module):
    """A folded :class:`Stem`: the 3x3 over two maps is two convolutions, and nothing is concatenated.

    Runtimes fuse the sum into the second convolution; the concatenation would be the largest copy of the network.
    """

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem1, self.stem2a, self.stem2b = (copy.deepcopy(part) for part in (stem.stem1, stem.stem2a, stem.stem2b))
        # Runtimes fuse padding into a convolution, but not into a pooling: this identity convolution is there for it.
        hidden = stem.stem1.conv.out_channels
        weight = stem.stem1.conv.weight
        self.same = nn.Conv2d(hidden, hidden, 1, groups=hidden, bias=False, device=weight.device, dtype=weight.dtype)
        nn.init.ones_(self.same.weight)
        self.pool = stem.pool
        stem3: Any = stem.stem3.fold()
        stem4: Any = stem.stem4.fold()
        self.act = stem3.act
        if isinstance(stem3.act, Clamp) and stem3.act.high is None:
            # Runtimes fuse an addition with a ReLU, but not with a clamp: its bound moves into the adjacent biases.
            self.act = nn.ReLU()
            stem3.conv.bias.data -= stem3.act.low
            stem4.conv.bias.data += stem3.act.low * stem4.conv.weight.data.sum((1, 2, 3))
        self.pooled_conv, self.fine_conv = split_inputs(stem3.conv, (hidden, hidden))
        self.stem4 = stem4

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, out, H / 4, W / 4)."""
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        fine = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.act(self.pooled_conv(self.pool(self.same(x))) + self.fine_conv(fine)))


class Block(nn.Module):
    """A sequence of layers; the input and all outputs are concatenated and aggregated by two 1x1 convolutions."""

    def __init__(self, in_channels: int, stage: Stage, residual: bool, affine: bool) -> None:
        super().__init__()
        self.residual = residual
        widths = [in_channels] + [stage.hidden] * stage.layers
        self.layers = nn.ModuleList(
            LightConv(a, b, stage.kernel, affine) if stage.light else _conv(a, b, stage.kernel, affine=affine)
            for a, b in pairwise(widths)
        )
        self.aggregation = nn.Sequential(
            _conv(sum(widths), stage.out // 2, 1, affine=affine), _conv(stage.out // 2, stage.out, 1, affine=affine)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, stage.out, H, W)."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        out = self.aggregation(torch.cat(maps, dim=1))
        return out + x if self.residual else out


class StageModule(nn.Module):
    """Halve the size (except in the first stage), then the blocks."""

    def __init__(self, in_channels: int, stage: Stage, downsample: bool, affine: bool) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            self.downsample = ConvNormAct(in_channels, in_channels, 3, stride=2, groups=in_channels, act=None)
        self.blocks = nn.Sequential(
            *(Block(in_channels if i == 0 else stage.out, stage, i > 0, affine) for i in range(stage.blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, stage.out, H / 2, W / 2), or H, W in the first stage."""
        return self.blocks(self.downsample(x))


@MODELS.register_module()
class HGNetV2(StagedBackbone):
    """HGNetV2; stages beyond the last stride asked for are not built.

    Args:
        variant: b0 .. b6 (PaddleClas); femto and atto (DEIMv2, arXiv 2509.20787; use ``out_strides`` up to 16).
        out_strides: ascending choice of 4, 8, 16, 32.
        affine: learnable affine after each ReLU; None for the published choice (b0 to b3, femto, atto have it).
        width: factor on all channels, rounded to multiples of 8.
        depth: factor on the number of layers of a block.
        kernel_size: of all layers, odd; None for the published 3 in the early and 5 in the late stages.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's, D-FINE's or this package's.
    """

    def __init__(
        self,
        variant: str = "b0",
        out_strides: Sequence[int] = (8, 16, 32),
        affine: bool | None = None,
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int | None = None,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        stem, stages, published = VARIANTS[variant]
        affine = published if affine is None else affine
        stages = tuple(
            s._replace(
                hidden=scaled_channels(s.hidden, width),
                out=scaled_channels(s.out, width),
                layers=max(1, round(s.layers * depth)),
                kernel=kernel_size or s.kernel,
            )
            for s in stages
        )
        strides = tuple(4 * 2**i for i in range(len(stages)))
        self.out_indices = select_strides(strides, out_strides)
        stages = stages[: self.out_indices[-1] + 1]
        inputs = [scaled_channels(stem[1], width)] + [stage.out for stage in stages]
        self.stem = Stem(scaled_channels(stem[0], width), inputs[0], affine)
        self.stages = nn.ModuleList(
            StageModule(inputs[i], stage, downsample=i > 0, affine=affine) for i, stage in enumerate(stages)
        )
        specs = [FeatureSpec(stage.out, stride) for stage, stride in zip(stages, strides, strict=False)]
        self.finish(specs, frozen, weights, renamed_key)


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, affine: bool
) -> ConvNormAct:
    kind = ConvNormReLUAffine if affine else ConvNormAct
    return kind(in_channels, out_channels, kernel_size, stride, groups)


def renamed_key(key: str) -> str | None:
    """The name in this package of a parameter of timm's or D-FINE's network; None for their classifiers."""
    if key.startswith(("head.", "fc.", "last_conv.")):
        return None
    return key.replace(".bn.", ".norm.")


_B0_STAGES = (
    Stage(16, 64, 1, False, 3, 3),
    Stage(32, 256, 1, False, 3, 3),
    Stage(64, 512, 2, True, 5, 3),
    Stage(128, 1024, 1, True, 5, 3),
)

VARIANTS: dict[str, Variant] = {
    "atto": Variant((16, 16), (*_B0_STAGES[:2], Stage(64, 256, 1, True, 3, 3)), True),
    "femto": Variant((16, 16), (*_B0_STAGES[:2], Stage(64, 512, 1, True, 5, 3)), True),
    "b0": Variant((16, 16), _B0_STAGES, True),
    "b1": Variant(
        (24, 32),
        (
            Stage(32, 64, 1, False, 3, 3),
            Stage(48, 256, 1, False, 3, 3),
            Stage(96, 512, 2, True, 5, 3),
            Stage(192, 1024, 1, True, 5, 3),
        ),
        True,
    ),
    "b2": Variant(
        (24, 32),
        (
            Stage(32, 96, 1, False, 3, 4),
            Stage(64, 384, 1, False, 3, 4),
            Stage(128, 768, 3, True, 5, 4),
            Stage(256, 1536, 1, True, 5, 4),
        ),
        True,
    ),
    "b3": Variant(
        (24, 32),
        (
            Stage(32, 128, 1, False, 3, 5),
            Stage(64, 512, 1, False, 3, 5),
            Stage(128, 1024, 3, True, 5, 5),
            Stage(256, 2048, 1, True, 5, 5),
        ),
        True,
    ),
    "b4": Variant(
        (32, 48),
        (
            Stage(48, 128, 1, False, 3, 6),
            Stage(96, 512, 1, False, 3, 6),
            Stage(192, 1024, 3, True, 5, 6),
            Stage(384, 2048, 1, True, 5, 6),
        ),
        False,
    ),
    "b5": Variant(
        (32, 64),
        (
            Stage(64, 128, 1, False, 3, 6),
            Stage(128, 512, 2, False, 3, 6),
            Stage(256, 1024, 5, True, 5, 6),
            Stage(512, 2048, 2, True, 5, 6),
        ),
        False,
    ),
    "b6": Variant(
        (48, 96),
        (
            Stage(96, 192, 2, False, 3, 6),
            Stage(192, 512, 3, False, 3, 6),
            Stage(384, 1024, 6, True, 5, 6),
            Stage(768, 2048, 3, True, 5, 6),
        ),
        False,
    ),
}
