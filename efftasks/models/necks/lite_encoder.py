"""The encoder of the smallest query detectors: one map of the backbone becomes two, without attention.

Source: DEIMv2 (arXiv 2509.20787, section 3.2, "LiteEncoder"); the global context after YOLOv6's bidirectional fusion.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.rep import RepELANBlock, upsampled
from efftasks.models.necks.base import Neck
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["LiteEncoder"]


def _pooled(channels: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(3, 2, padding=1), ConvNormAct(channels, channels, 1, act="silu"))


@MODELS.register_module()
class LiteEncoder(Neck):
    """A coarser map by pooling, global context on it, then top-down and bottom-up fusion by addition.

    Args:
        in_specs: the one map of the backbone; given by the detector.
        channels: of both output maps.
        expansion: width inside a fusion block.
        depth: RepConvs in a row inside a block.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int, expansion: float = 0.34, depth: int = 2) -> None:
        if len(in_specs) != 1:
            raise ValueError(f"in_specs: got {len(in_specs)} maps, expected one: set the backbone's out_strides")
        (spec,) = in_specs
        super().__init__((spec.stride, 2 * spec.stride))
        self.input_proj = ConvNormAct(spec.channels, channels, 1, act=None)
        self.down1, self.down2 = _pooled(channels), _pooled(channels)
        self.context = ConvNormAct(channels, channels, 1, act="silu")
        self.top_down = RepELANBlock((channels,), channels, depth, expansion)
        self.bottom_up = RepELANBlock((channels,), channels, depth, expansion)

    def last_parts(self) -> list[nn.Module]:
        """The last fusion block of each map."""
        return [self.top_down, self.bottom_up]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """One map (B, C, H, W) -> maps (B, channels, H, W) and (B, channels, H / 2, W / 2)."""
        fine = self.input_proj(features[0])
        coarse = self.down1(fine)
        coarse = self.context(coarse + coarse.mean((2, 3), keepdim=True))
        fine = self.top_down((fine + upsampled(coarse),))
        return fine, self.bottom_up((coarse + self.down2(fine),))
