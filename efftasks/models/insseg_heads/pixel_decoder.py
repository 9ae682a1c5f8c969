"""The pixel decoder: from the maps of an encoder to one fine map of pixel embeddings for masks.

Sources: FPN (arXiv 1612.03144, section 3) for the sum from coarse to fine; Mask2Former (arXiv 2112.01527, section 3)
for its role; depthwise separable convolutions (arXiv 1704.04861, section 3.1); CoordConv (arXiv 1807.03247), as in SOLO
and SparseInst, to tell similar objects apart by their position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.rep import upsampled
from efftasks.models.necks.base import output_channels
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE

__all__ = ["PixelDecoder"]


def _smooth(channels: int, act: str) -> nn.Sequential:
    """Depthwise 5x5, then 1x1: smooths a map after nearest upsampling."""
    return nn.Sequential(
        ConvNormAct(channels, channels, 5, groups=channels, act=act), ConvNormAct(channels, channels, 1, act=act)
    )


class PixelDecoder(nn.Module):
    """Sums laterals from coarse to fine and smooths the sum; then upsamples and smooths to the stride of masks.

    Args:
        in_specs: the maps, finest first, strides doubling; the finest at ``MASK_STRIDE`` times a power of 2.
        channels: of the fine map.
        act: activation.

    Raises:
        ValueError: other strides.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int, act: str = "relu") -> None:
        super().__init__()
        strides = [spec.stride for spec in in_specs]
        ratio, rest = divmod(strides[0], MASK_STRIDE)
        if rest or ratio & (ratio - 1) or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(
                f"in_specs: got strides {strides}, expected {MASK_STRIDE} * 2^n, each twice the one before"
            )
        self.laterals = nn.ModuleList(ConvNormAct(spec.channels, channels, 1, act=None) for spec in in_specs)
        self.place = nn.Conv2d(
            2, channels, 1, bias=False
        )  # equal to two more input channels of a lateral, with coordinates
        steps = ratio.bit_length() - 1
        self.smooth = nn.ModuleList(_smooth(channels, act) for _ in range(steps + 1))

    @property
    def specs(self) -> tuple[FeatureSpec]:
        """The spec of the fine map; its channels are read from its last layer."""
        return (FeatureSpec(output_channels(self.smooth), MASK_STRIDE),)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H / s_i, W / s_i), finest first -> (B, channels, H / 4, W / 4)."""
        *finer, merged = (lateral(x) for lateral, x in zip(self.laterals, maps))
        for x in reversed(finer):
            merged = x + upsampled(merged)
        merged = self.smooth[0](merged + self.place(_coordinates(merged)))
        for smooth in self.smooth[1:]:
            merged = smooth(upsampled(merged))
        return merged


def _coordinates(x: Tensor) -> Tensor:
    """Coordinates (1, 2, h, w): x and y of the cells' centers, each from -1 to 1 across the map."""
    height, width = x.shape[-2:]
    row = (torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) * (2 / height) - 1
    column = (torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) * (2 / width) - 1
    return torch.stack([column[None].expand(height, width), row[:, None].expand(height, width)])[None]
