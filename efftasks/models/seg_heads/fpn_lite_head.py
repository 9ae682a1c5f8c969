"""A light top-down pyramid with a classifier on its finest map, for nano segmentors.

Sources: FPN (arXiv 1612.03144, section 3) and its semantic branch in Panoptic FPN (arXiv 1901.02446, section 3.2), with
depthwise separable smoothing (MobileNets, arXiv 1704.04861, section 3.1) and the pooled context of LR-ASPP
(arXiv 1905.02244, section 6.4) on the coarsest map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn
from torch.nn import functional

from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS

__all__ = ["FPNLiteHead"]


class _Context(nn.Module):
    """Channel attention: scales the channels of a map by a gate of its global average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class _Smooth(nn.Sequential):
    """Depthwise 5x5, then 1x1: smooths a map after nearest upsampling."""

    def __init__(self, channels: int, act: str) -> None:
        super().__init__(
            ConvNormAct(channels, channels, 5, groups=channels, act=act), ConvNormAct(channels, channels, 1, act=act)
        )


@MODELS.register_module()
class FPNLiteHead(BaseDecodeHead):
    """Top-down pyramid, classifier on the finest map.

    Args:
        in_channels: of the selected maps; set by the segmentor.
        channels: of the pyramid and of the classifier's 3x3.
        num_classes: classes.
        in_index: the maps, finest first.
        act: activation.
        kwargs: of mmseg's decode heads: loss_decode, dropout_ratio, ignore_index, sampler.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        in_index: Sequence[int],
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
        self.laterals = nn.ModuleList(ConvNormAct(width, channels, 1, act=act) for width in in_channels)
        self.context = _Context(channels)
        self.smooth = nn.ModuleList(_Smooth(channels, act) for _ in in_channels[:-1])
        self.mix = ConvNormAct(channels, channels, 3, act=act)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps, finest first -> logits (B, num_classes, h, w) at the finest map's stride."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, self._transform_inputs(inputs))]
        merged = self.context(maps[-1])
        for x, smooth in zip(maps[-2::-1], self.smooth):
            merged = smooth(x + functional.interpolate(merged, x.shape[2:], mode="nearest"))
        return self.cls_seg(self.mix(merged))
