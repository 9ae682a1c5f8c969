"""Convolutional blocks of the neck.

Sources: CSPNet (arXiv 1911.11929, section 3) and ELAN (arXiv 2211.04800, section 3) for the split with a growing
concatenation; SPP (arXiv 1406.4729) for pooling over several windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.rep import HalvesConv

__all__ = ["ELANBlock", "PyramidPool"]


class ELANBlock(nn.Module):
    """1x1 to two halves, ``depth`` pairs of 3x3 on one of them, concatenate everything, 1x1.

    Args:
        in_channels: channels of every input.
        out_channels: channels of the output.
        depth: pairs of 3x3 convolutions.
        expansion: hidden width over output width.
        upsample: index of an input of half the size of the others.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        depth: int = 1,
        expansion: float = 0.5,
        upsample: int | None = None,
    ) -> None:
        super().__init__()
        hidden = max(8, int(out_channels * expansion + 0.5))
        self.split = HalvesConv(in_channels, hidden, "relu", upsample)
        self.pairs = nn.ModuleList(
            nn.Sequential(ConvNormAct(hidden, hidden, 3), ConvNormAct(hidden, hidden, 3)) for _ in range(depth)
        )
        self.merge = ConvNormAct((2 + depth) * hidden, out_channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, in_channels[i], H, W) -> (B, out_channels, H, W)."""
        parts = list(self.split(maps))
        for pair in self.pairs:
            parts.append(pair(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class PyramidPool(nn.Module):
    """1x1, three 5x5 max poolings in a row (windows of 5, 9 and 13), concatenate, 1x1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.reduce = ConvNormAct(in_channels, hidden, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.merge = ConvNormAct(4 * hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))
