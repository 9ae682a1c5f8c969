"""ResNet-vd: three 3x3 in the stem, and an average pooling before the 1x1 of a strided shortcut.

Sources: "Bag of tricks" (arXiv 1812.01187, section 4, ResNet-D); the backbone of RT-DETR (arXiv 2304.08069), whose
basic blocks have a projection in the first block of every stage, the first stage included, as in PaddleClas. mmdet and
timm have none there, so that RT-DETR's published weights of depth 18 and 34 fit neither. Written anew.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["ResNetVD"]

_STRIDES = (4, 8, 16, 32)
_WIDTHS = (64, 128, 256, 512)


class Depth(NamedTuple):
    """Blocks of each stage, and whether they are bottlenecks."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


DEPTHS: dict[int, Depth] = {
    18: Depth((2, 2, 2, 2), False),
    34: Depth((3, 4, 6, 3), False),
    50: Depth((3, 4, 6, 3), True),
    101: Depth((3, 4, 23, 3), True),
}


# (pattern, replacement), from the start of a name in RT-DETR's published backbones, in order.
PUBLISHED_NAMES = (
    (r"conv1\.conv1_1\.", "stem.0."),
    (r"conv1\.conv1_2\.", "stem.1."),
    (r"conv1\.conv1_3\.", "stem.2."),
    (r"res_layers\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
    (r"(stages\.\d+\.\d+)\.branch2a\.", r"\1.branch.0."),
    (r"(stages\.\d+\.\d+)\.branch2b\.", r"\1.branch.1."),
    (r"(stages\.\d+\.\d+)\.branch2c\.", r"\1.branch.2."),
    # Where nothing is pooled, the published name has no `conv` between.
    (r"(stages\.\d+\.\d+)\.short\.(?:conv\.(?=conv\.|norm\.))?", r"\1.shortcut.conv."),
)


class Block(nn.Module):
    """Two 3x3, or 1x1, 3x3 and a four times wider 1x1, beside a shortcut.

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3.
        stride: of the first 3x3 (basic) or the only one (bottleneck).
        project: a 1x1 in the shortcut, after an average pooling where the block is strided.
        bottleneck: a bottleneck block instead of a basic one.
    """

    def __init__(self, in_channels: int, width: int, stride: int, project: bool, bottleneck: bool) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        if bottleneck:
            layers = [
                ConvNormAct(in_channels, width, 1),
                ConvNormAct(width, width, 3, stride),
                ConvNormAct(width, out_channels, 1, act=None),
            ]
        else:
            layers = [ConvNormAct(in_channels, width, 3, stride), ConvNormAct(width, width, 3, act=None)]
        self.branch = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
            self.shortcut = nn.Sequential(
                OrderedDict(pool=pool, conv=ConvNormAct(in_channels, out_channels, 1, act=None))
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return F.relu(self.branch(x) + self.shortcut(x))


@MODELS.register_module()
class ResNetVD(StagedBackbone):
    """ResNet-vd.

    Args:
        depth: 18, 34, 50 or 101.
        out_strides: ascending choice of 4, 8, 16, 32.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: RT-DETR's, or this package's.
    """

    def __init__(
        self,
        depth: int = 18,
        out_strides: Sequence[int] = (8, 16, 32),
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth: got {depth!r}, allowed {tuple(DEPTHS)}")
        blocks, bottleneck = DEPTHS[depth]
        self.out_indices = select_strides(_STRIDES, out_strides)
        pool = nn.MaxPool2d(3, 2, padding=1)
        self.stem = nn.Sequential(ConvNormAct(3, 32, 3, 2), ConvNormAct(32, 32, 3), ConvNormAct(32, 64, 3), pool)
        factor = 4 if bottleneck else 1
        channels = 64
        self.stages = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            width, stride = _WIDTHS[i], 2 if i else 1
            first = Block(channels, width, stride, True, bottleneck)
            channels = factor * width
            rest = (Block(channels, width, 1, False, bottleneck) for _ in range(blocks[i] - 1))
            self.stages.append(nn.Sequential(first, *rest))
        specs = [FeatureSpec(factor * width, stride) for width, stride in zip(_WIDTHS, _STRIDES)]
        self.finish(specs, frozen, weights, renamed_key)


def renamed_key(key: str) -> str:
    """The name here of a parameter in RT-DETR's published backbones; others stay as they are."""
    for pattern, replacement in PUBLISHED_NAMES:
        key = re.sub("^" + pattern, replacement, key)
    return key
