"""Blocks of several branches in training that become one convolution for use, and how the query necks stack them.

Sources: RepVGG (arXiv 2101.03697, section 3.3) for the fusing; RT-DETR (arXiv 2304.08069, section 4.2) for the CSP
block of it; D-FINE (arXiv 2410.13842, appendix) for the ELAN block (after GELAN, arXiv 2402.13616).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct, build_activation, fold_norm

__all__ = ["CSPRepBlock", "RepConv", "RepELANBlock"]


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution, each with its norm, added, then the activation; channels stay.

    Args:
        channels: of input and output.
        act: as ``build_activation`` has it.
    """

    def __init__(self, channels: int, act: str | None = "silu") -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, act=None)
        self.conv2 = ConvNormAct(channels, channels, 1, act=None)
        self.act_name = act
        self.act = build_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.act(self.conv1(x) + self.conv2(x))

    def fuse(self) -> nn.Module:
        """One 3x3 convolution with bias and the activation."""
        conv = fold_norm(self.conv1.conv, self.conv1.norm)
        point = fold_norm(self.conv2.conv, self.conv2.norm)
        assert conv.bias is not None and point.bias is not None
        conv.weight.data += F.pad(point.weight.data, (1, 1, 1, 1))
        conv.bias.data += point.bias.data
        return nn.Sequential(OrderedDict(conv=conv, act=build_activation(self.act_name, inplace=False))).eval()


class CSPRepBlock(nn.Module):
    """One 1x1 gives two halves; one goes through ``depth`` RepConvs and is added to the other.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        depth: RepConvs.
        expansion: width of a half over ``out_channels``; where it is not 1, a 1x1 brings the width back.
        act: as ``build_activation`` has it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, expansion: float = 1.0, act: str | None = "silu"
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.split = ConvNormAct(in_channels, 2 * hidden, 1, act=act)
        self.blocks = nn.Sequential(*(RepConv(hidden, act) for _ in range(depth)))
        self.merge = ConvNormAct(hidden, out_channels, 1, act=act) if hidden != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        straight, deep = self.split(x).chunk(2, dim=1)
        return self.merge(straight + self.blocks(deep))


class RepELANBlock(nn.Module):
    """1x1 to two halves, two CSP stages with a 3x3 each in a row on one half, all four concatenated, 1x1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        depth: RepConvs of each stage.
        expansion: width of a stage over half of ``out_channels``.
        act: as ``build_activation`` has it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, expansion: float, act: str | None = "silu"
    ) -> None:
        super().__init__()
        width = round(expansion * out_channels // 2)
        self.split = ConvNormAct(in_channels, 2 * out_channels, 1, act=act)
        self.stages = nn.ModuleList(
            nn.Sequential(
                CSPRepBlock(channels, width, depth, act=act),
                ConvNormAct(width, width, 3, act=act),
            )
            for channels in (out_channels, width)
        )
        self.merge = ConvNormAct(2 * out_channels + 2 * width, out_channels, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        parts = list(self.split(x).chunk(2, dim=1))
        for stage in self.stages:
            parts.append(stage(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))
