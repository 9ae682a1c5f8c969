"""Adapters: from a map of the student to a map that is compared with the teacher's.

They are built with the channels of both, and called with the size of the teacher's map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.registry import MODELS

__all__ = ["ConvAdapter", "MaskedGenerator", "resized"]


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, H, W) -> (B, C, *size): average-pooled where that is smaller, else interpolated bilinearly."""
    height, width = size
    if maps.shape[2:] == (height, width):
        return maps
    if height <= maps.shape[2] and width <= maps.shape[3]:
        return functional.interpolate(maps, (height, width), mode="area")
    return functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


@MODELS.register_module()
class ConvAdapter(nn.Module):
    """A 1x1 convolution, then :func:`resized`.

    Args:
        in_channels: of the student's map; given by the term.
        out_channels: of the teacher's map; given by the term.
        bias: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, *size)."""
        return resized(self.conv(maps), size)


@MODELS.register_module()
class MaskedGenerator(nn.Module):
    """Masked generation: the teacher's map is generated from a part of the pixels of the student's.

    Pixels of the adapted map become 0 with a probability, the same for all channels; two 3x3 convolutions with a ReLU
    between generate the map.

    Source: MGD (arXiv 2205.01529), section 3. The 1x1 convolution is there always.

    Args:
        in_channels: of the student's map; given by the term.
        out_channels: of the teacher's map; given by the term.
        mask_ratio: probability of a pixel to be masked; the paper's for detectors is 0.65 with one stage, 0.45 with
            two, and 0.75 for segmentation.
    """

    def __init__(self, in_channels: int, out_channels: int, mask_ratio: float = 0.65) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"mask_ratio: got {mask_ratio}, allowed are numbers from 0 to below 1")
        self.mask_ratio = mask_ratio
        self.align = ConvAdapter(in_channels, out_channels)
        self.generator = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, *size)."""
        aligned = self.align(maps, size)
        kept = torch.rand(aligned.shape[0], 1, *aligned.shape[2:], device=aligned.device) >= self.mask_ratio
        return self.generator(aligned * kept)
