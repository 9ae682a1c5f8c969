"""A light path-aggregation neck: top-down, then bottom-up, with ELAN blocks.

Sources: FPN (arXiv 1612.03144), PANet (arXiv 1803.01534, section 3.1); blocks in ``layers/csp.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.csp import ELANBlock, PyramidPool
from efftasks.models.necks.base import Neck
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["LightPAN"]


@MODELS.register_module()
class LightPAN(Neck):
    """Path-aggregation neck over maps whose strides double.

    Args:
        in_specs: maps of the backbone, finest first; given by the detector.
        out_channels: channels of each output map, finest first.
        depth: pairs of 3x3 convolutions in each block.
        expansion: hidden width of the blocks over their output width.
    """

    def __init__(
        self, in_specs: Sequence[FeatureSpec], out_channels: Sequence[int], depth: int = 1, expansion: float = 0.5
    ) -> None:
        strides = [spec.stride for spec in in_specs]
        if len(out_channels) != len(strides):
            raise ValueError(
                f"out_channels: got {len(out_channels)} numbers, expected {len(strides)} (strides {strides})"
            )
        if any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"in_specs: got strides {strides}, expected each to be twice the one before")
        super().__init__(strides)
        levels = range(len(strides) - 1)
        self.pool = PyramidPool(in_specs[-1].channels, out_channels[-1])
        self.laterals = nn.ModuleList(ConvNormAct(in_specs[i].channels, out_channels[i], 1) for i in levels)
        self.top_down = nn.ModuleList(
            ELANBlock(out_channels[i : i + 2], out_channels[i], depth, expansion, upsample=1) for i in levels
        )
        self.down = nn.ModuleList(ConvNormAct(out_channels[i], out_channels[i], 3, stride=2) for i in levels)
        self.bottom_up = nn.ModuleList(
            ELANBlock(out_channels[i : i + 2], out_channels[i + 1], depth, expansion) for i in levels
        )

    def last_parts(self) -> list[nn.Module]:
        """The last block of each map."""
        return [*self.top_down[:1], *self.bottom_up] or [self.pool]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i), finest first -> maps (B, out_channels[i], H_i, W_i)."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, features)] + [self.pool(features[-1])]
        for i in reversed(range(len(self.top_down))):
            maps[i] = self.top_down[i]((maps[i], maps[i + 1]))
        for i in range(len(self.bottom_up)):
            maps[i + 1] = self.bottom_up[i]((self.down[i](maps[i]), maps[i + 1]))
        return tuple(maps)
