"""PP-LiteSeg's head: pyramid pooling on the coarsest map, then fusions of coarse and fine maps weighted by attention.

Source: PP-LiteSeg (arXiv 2204.02681): section 3.1 the decoder that narrows towards the fine maps, 3.2 the unified
attention fusion, 3.3 the simple pyramid pooling. Details that are not in the paper (kernels, norms, a fusion of the
context with the coarsest map, the classifier's 3x3) follow PaddleSeg and Deci's super-gradients (both Apache-2.0); with
the weights of the latter the outputs are the same. Written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import efftasks.compat  # noqa: F401

# isort: split
import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS

__all__ = ["Attention", "AttentionFusion", "ChannelAttention", "PPLiteSegHead", "SimplePyramidPool", "SpatialAttention"]

Attention = Literal["spatial", "channel"]


class SimplePyramidPool(nn.Module):
    """Averages over 1, 2 x 2, 4 x 4, ... parts of the map, resized and added: section 3.3.

    As in PyTorch's adaptive pooling, parts overlap by up to one cell where a side is not divisible, and a side shorter
    than the parts repeats cells. Exported at a fixed size, an average is one AveragePool where both sides are
    divisible, and some fifty gathers and sums otherwise.

    Args:
        in_channels: of the map.
        channels: of the branches and of the output.
        bins: the number of parts of a side, for each branch.
        act: activation.
    """

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int] = (1, 2, 4), act: str = "relu") -> None:
        super().__init__()
        if not bins or any(count < 1 for count in bins):
            raise ValueError(f"bins: got {bins}, allowed are one or more positive numbers")
        self.bins = tuple(bins)
        self.branches = nn.ModuleList(ConvNormAct(in_channels, channels, 1, act=act) for _ in bins)
        self.merge = ConvNormAct(channels, channels, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H, W)."""
        pooled = [branch(F.adaptive_avg_pool2d(x, count)) for count, branch in zip(self.bins, self.branches)]
        first, *others = [F.interpolate(part, x.shape[2:], mode="bilinear") for part in pooled]
        return self.merge(sum(others, first))


class SpatialAttention(nn.Module):
    """A weight for each pixel, from the mean and the maximum over the channels of both maps: section 3.2."""

    def __init__(self, act: str = "relu") -> None:
        super().__init__()
        self.mix = ConvNormAct(4, 2, 3, act=act)
        self.score = ConvNormAct(2, 1, 3, act=None)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Two maps (B, C, H, W) -> weights of the first (B, 1, H, W) in 0 to 1."""
        statistics = [statistic(x, 1, keepdim=True) for x in (coarse, fine) for statistic in (torch.mean, torch.amax)]
        return self.score(self.mix(torch.cat(statistics, dim=1))).sigmoid()


class ChannelAttention(nn.Module):
    """A weight for each channel, from the mean and the maximum over the pixels of both maps: section 3.2.

    Its activation is that of the head; PaddleSeg has a leaky ReLU here.

    Args:
        channels: of the maps; half of them between the convolutions.
        act: activation.
    """

    def __init__(self, channels: int, act: str = "relu") -> None:
        super().__init__()
        self.mix = ConvNormAct(4 * channels, channels // 2, 1, act=act)
        self.score = ConvNormAct(channels // 2, channels, 1, act=None)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Two maps (B, C, H, W) -> weights of the first (B, C, 1, 1) in 0 to 1."""
        statistics = [
            statistic(x, (2, 3), keepdim=True) for x in (coarse, fine) for statistic in (torch.mean, torch.amax)
        ]
        return self.score(self.mix(torch.cat(statistics, dim=1))).sigmoid()


class AttentionFusion(nn.Module):
    """A mean of two maps weighted by attention, then a 3x3: section 3.2.

    Args:
        fine_channels: of the finer map, which a 3x3 projects to those of the coarser one.
        coarse_channels: of the coarser map.
        out_channels: of the output.
        attention: ``spatial`` or ``channel``.
        act: activation.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        out_channels: int,
        attention: Attention = "spatial",
        act: str = "relu",
    ) -> None:
        super().__init__()
        if attention not in get_args(Attention):
            raise ValueError(f"attention: got {attention!r}, allowed {get_args(Attention)}")
        self.lateral = ConvNormAct(fine_channels, coarse_channels, 3, act=act)
        self.attention = SpatialAttention(act) if attention == "spatial" else ChannelAttention(coarse_channels, act)
        self.merge = ConvNormAct(coarse_channels, out_channels, 3, act=act)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine_channels, H, W), (B, coarse_channels, h, w) -> (B, out_channels, H, W)."""
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear")
        fine = self.lateral(fine)
        weight = self.attention(coarse, fine)
        return self.merge(coarse * weight + fine * (1 - weight))


@MODELS.register_module()
class PPLiteSegHead(BaseDecodeHead):
    """PP-LiteSeg without its encoder; the logits are those of the finest fused map.

    The paper's encoders are STDC1 and STDC2 (``mmseg.STDCNet``), whose maps have strides 8, 16, 32 and 256, 512 and
    1024 channels; any maps from fine to coarse work. PP-LiteSeg-T has ``decoder_channels=(32, 64, 128), channels=32``,
    PP-LiteSeg-B ``decoder_channels=(64, 96, 128), channels=64``.

    Training needs at least two images in a batch: the norm after the global average has one value for each image.

    Args:
        in_channels: of the selected maps; set by the segmentor.
        channels: of the classifier's 3x3.
        num_classes: classes.
        in_index: the maps, finest first.
        decoder_channels: of the fused maps, finest first; the last also of the context.
        bins: parts of a side in the pyramid pooling.
        attention: ``spatial`` or ``channel``.
        act: activation.
        kwargs: of mmseg's decode heads: loss_decode, dropout_ratio, ignore_index, sampler.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        in_index: Sequence[int],
        decoder_channels: Sequence[int] = (32, 64, 128),
        bins: Sequence[int] = (1, 2, 4),
        attention: Attention = "spatial",
        act: str = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            input_transform="multiple_select",
            **kwargs,
        )
        if len(decoder_channels) != len(in_channels):
            raise ValueError(
                f"decoder_channels: got {len(decoder_channels)} numbers, expected {len(in_channels)}: one for each map"
            )
        self.context = SimplePyramidPool(in_channels[-1], decoder_channels[-1], bins, act)
        coarser = [*decoder_channels[1:], decoder_channels[-1]]
        self.fusions = nn.ModuleList(
            AttentionFusion(fine, coarse, out, attention, act)
            for fine, coarse, out in zip(in_channels, coarser, decoder_channels)
        )
        self.mix = ConvNormAct(decoder_channels[0], channels, 3, act=act)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps, finest first -> logits (B, num_classes, h, w) at the finest map's stride."""
        maps = self._transform_inputs(inputs)
        fused = self.context(maps[-1])
        for x, fusion in zip(maps[::-1], reversed(self.fusions)):
            fused = fusion(x, fused)
        return self.cls_seg(self.mix(fused))
