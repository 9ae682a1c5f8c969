"""Blocks of several branches that become one convolution at inference, and the fusion blocks of query necks.

Sources: RepVGG (arXiv 2101.03697, section 3.3) for reparametrization; RT-DETR (arXiv 2304.08069, section 4.2) for its
CSP block; D-FINE (arXiv 2410.13842, appendix) for the ELAN block (after GELAN, arXiv 2402.13616).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct, build_activation, fold_norm, split_inputs, split_outputs

__all__ = ["CSPRepBlock", "HalvesConv", "RepConv", "RepELANBlock", "upsampled"]


class RepConv(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution, each with a norm, then the activation.

    Args:
        channels: of input and output.
        act: see ``build_activation``.
    """

    reads_parts = ("conv1.conv", "conv2.conv")  # folding

    def __init__(self, channels: int, act: str | None = "silu") -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, act=None)
        self.conv2 = ConvNormAct(channels, channels, 1, act=None)
        self.act_name = act
        self.act = build_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.act(self.conv1(x) + self.conv2(x))

    def fold(self) -> nn.Module:
        """One 3x3 convolution with bias and the activation."""
        conv = fold_norm(self.conv1.conv, self.conv1.norm)
        point = fold_norm(self.conv2.conv, self.conv2.norm)
        assert conv.bias is not None and point.bias is not None
        conv.weight.data += F.pad(point.weight.data, (1, 1, 1, 1))
        conv.bias.data += point.bias.data
        return nn.Sequential(OrderedDict(conv=conv, act=build_activation(self.act_name, inplace=False))).eval()


class HalvesConv(ConvNormAct):
    """A 1x1 over one or several concatenated maps, whose output is split in two halves.

    Args:
        in_channels: channels of every map.
        half: channels of a half.
        act: see ``build_activation``.
        upsample: index of a map of half the size of the others.
    """

    reads_parts = ("conv",)  # folding

    def __init__(self, in_channels: Sequence[int], half: int, act: str | None, upsample: int | None = None) -> None:
        super().__init__(sum(in_channels), 2 * half, 1, act=act)
        self.in_channels, self.upsample = tuple(in_channels), upsample

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Maps (B, C_i, H, W) -> two of (B, half, H, W)."""
        same_size = [upsampled(x) if i == self.upsample else x for i, x in enumerate(maps)]
        one, two = super().forward(torch.cat(same_size, dim=1)).chunk(2, dim=1)
        return one, two

    def keep_channels(self, layer: str, side: str, kept: Sequence[int]) -> None:
        """Count the channels of every map again: the convolution reads only some of them."""
        if (layer, side) == ("conv", "in"):
            ends = list(accumulate(self.in_channels, initial=0))
            self.in_channels = tuple(sum(a <= i < b for i in kept) for a, b in pairwise(ends))

    def fold(self) -> nn.Module:
        """The same without concatenating and splitting, and with the smaller map upsampled after its 1x1."""
        return FoldedHalvesConv(self).eval()


class FoldedHalvesConv(nn.Module):
    """A folded :class:`HalvesConv`."""

    def __init__(self, trained: HalvesConv) -> None:
        super().__init__()
        self.upsample = trained.upsample
        halves = split_outputs(fold_norm(trained.conv, trained.norm), 2)
        self.halves = nn.ModuleList(nn.ModuleList(split_inputs(half, trained.in_channels)) for half in halves)
        self.act = build_activation(trained.act_name, inplace=False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`HalvesConv.forward`."""
        results = []
        for half in self.halves:
            parts = [conv(x) for conv, x in zip(half, maps)]  # type: ignore[call-overload]
            if self.upsample is not None:
                parts[self.upsample] = upsampled(parts[self.upsample])
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            results.append(self.act(total))
        return results


def upsampled(x: Tensor) -> Tensor:
    """Nearest upsampling by 2: (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class CSPRepBlock(nn.Module):
    """A 1x1 makes two halves; one passes through ``depth`` RepConvs and is added to the other.

    Args:
        in_channels: channels of every input.
        out_channels: channels of the output.
        depth: RepConvs.
        expansion: width of a half over ``out_channels``; if it is not 1, a 1x1 restores the width.
        act: see ``build_activation``.
        upsample: index of an input of half the size of the others.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        depth: int,
        expansion: float = 1.0,
        act: str | None = "silu",
        upsample: int | None = None,
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.split = HalvesConv(in_channels, hidden, act, upsample)
        self.blocks = nn.Sequential(*(RepConv(hidden, act) for _ in range(depth)))
        self.merge = ConvNormAct(hidden, out_channels, 1, act=act) if hidden != out_channels else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, in_channels[i], H, W) -> (B, out_channels, H, W)."""
        straight, deep = self.split(maps)
        return self.merge(straight + self.blocks(deep))


class RepELANBlock(nn.Module):
    """1x1 to two halves, two CSP stages with a 3x3 each in a row on one half, all four concatenated, 1x1.

    Args:
        in_channels: channels of every input.
        out_channels: channels of the output.
        depth: RepConvs of each stage.
        expansion: width of a stage over half of ``out_channels``.
        act: see ``build_activation``.
        upsample: index of an input of half the size of the others.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        depth: int,
        expansion: float,
        act: str | None = "silu",
        upsample: int | None = None,
    ) -> None:
        super().__init__()
        width = round(expansion * out_channels // 2)
        self.split = HalvesConv(in_channels, out_channels, act, upsample)
        self.stages = nn.ModuleList(
            nn.Sequential(
                CSPRepBlock((channels,), width, depth, act=act),
                ConvNormAct(width, width, 3, act=act),
            )
            for channels in (out_channels, width)
        )
        self.merge = ConvNormAct(2 * out_channels + 2 * width, out_channels, 1, act=act)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, in_channels[i], H, W) -> (B, out_channels, H, W)."""
        parts = list(self.split(maps))
        for stage in self.stages:
            parts.append(stage((parts[-1],)))
        return self.merge(torch.cat(parts, dim=1))
