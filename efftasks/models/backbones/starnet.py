"""StarNet: inverted bottlenecks that multiply two 1x1 branches (the star operation).

Source: StarNet (arXiv 2403.19967, "Rewrite the Stars"), section 4. The tables were compared with timm's ``starnet_s*``
(Apache-2.0), whose checkpoints load here. Written anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from efftasks.models.backbones.base import check_scale, scaled_channels, select_strides
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.layers.conv import ConvNormAct, DepthwiseConv2d, build_activation
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["StarNet"]

_STRIDES = (4, 8, 16, 32)
_STEM = 32


class Variant(NamedTuple):
    """Channels of the stage of stride 4 (each stage doubles them), blocks of every stage, width of the branches."""

    channels: int
    blocks: tuple[int, int, int, int]
    expansion: int


VARIANTS: dict[str, Variant] = {
    "s1": Variant(24, (2, 2, 8, 3), 4),
    "s2": Variant(32, (1, 2, 6, 2), 4),
    "s3": Variant(32, (2, 2, 8, 4), 4),
    "s4": Variant(32, (3, 3, 12, 5), 4),
    "s050": Variant(16, (1, 1, 3, 1), 3),
    "s100": Variant(20, (1, 2, 4, 1), 4),
    "s150": Variant(24, (1, 2, 4, 2), 3),
}


class StarBlock(nn.Module):
    """Depthwise, two 1x1 expansions, ReLU6 of one times the other, 1x1 projection, depthwise; added to the input.

    Args:
        channels: of input and output.
        expansion: width of the two branches over ``channels``.
        kernel_size: of both depthwise convolutions; odd.
    """

    def __init__(self, channels: int, expansion: int, kernel_size: int) -> None:
        super().__init__()
        hidden = expansion * channels
        self.dwconv = ConvNormAct(channels, channels, kernel_size, groups=channels, act=None, bias=True)
        self.f1 = nn.Conv2d(channels, hidden, 1)
        self.f2 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(
            "relu6", inplace=False
        )  # an observer of quantization may hold the convolution's output
        self.g = ConvNormAct(hidden, channels, 1, act=None, bias=True)
        self.dwconv2 = DepthwiseConv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        mixed = self.dwconv(x)
        return x + self.dwconv2(self.g(self.act(self.f1(mixed)) * self.f2(mixed)))


@MODELS.register_module()
class StarNet(StagedBackbone):
    """StarNet; stages beyond the last stride asked for are not built.

    Args:
        variant: s1 to s4; the very small s050, s100, s150.
        out_strides: ascending choice of 4, 8, 16, 32.
        width: factor on all channels, rounded to multiples of 8.
        depth: factor on the blocks of every stage, of which at least one stays.
        kernel_size: of the depthwise convolutions; odd.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: timm's or this package's.
    """

    def __init__(
        self,
        variant: str = "s1",
        out_strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int = 7,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        self.out_indices = select_strides(_STRIDES, out_strides)
        published = VARIANTS[variant]
        channels = scaled_channels(_STEM, width)
        self.stem = ConvNormAct(3, channels, 3, stride=2, act="relu6", bias=True)
        self.stages = nn.ModuleList()
        specs = []
        for i in range(self.out_indices[-1] + 1):
            out = scaled_channels(published.channels * 2**i, width)
            count = max(1, int(published.blocks[i] * depth + 0.5))
            blocks = (StarBlock(out, published.expansion, kernel_size) for _ in range(count))
            down = ConvNormAct(channels, out, 3, stride=2, act=None, bias=True)
            self.stages.append(nn.Sequential(down, *blocks))
            specs.append(FeatureSpec(out, _STRIDES[i]))
            channels = out
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                # Small, as published: the branches and the last convolution of a block have no norm to set their scale.
                nn.init.trunc_normal_(part.weight, std=0.02)
        self.finish(specs, frozen, weights, renamed_key)


def renamed_key(key: str) -> str | None:
    """The name in this package of a parameter of timm's ``starnet_s*``; None for its classifier and last norm."""
    if key.startswith(("norm.", "head.")):
        return None
    key = re.sub(r"^stem\.0\.", "stem.", key)
    key = re.sub(r"\.(f1|f2|dwconv2)\.conv\.", r".\1.", key)  # those without a norm
    return key.replace(".bn.", ".norm.")
