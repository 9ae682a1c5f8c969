"""The decode head of SCTNet: norm and activation, a 3x3 convolution, norm and activation, the classifier.

Source: SCTNet (arXiv 2312.17071), "Overall Architecture", and the authors' code (xzz777/SCTNet, MIT). Written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from efftasks.models.layers.conv import ConvNormAct, NormAct
from efftasks.registry import MODELS

__all__ = ["SCTHead"]


@MODELS.register_module()
class SCTHead(BaseDecodeHead):
    """Classifies one map at its own stride.

    Also the auxiliary head of SCTNet, on the map of stride 8 before fusion (``SCTNet(detail=True)``).

    Args:
        in_channels: of the selected map; set by the segmentor.
        channels: of the 3x3 convolution; those of the map in the published networks.
        num_classes: classes.
        in_index: the map.
        dropout_ratio: before the classifier.
        kwargs: of mmseg's decode heads: loss_decode, ignore_index, sampler.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        in_index: Sequence[int],
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if len(in_index) != 1:
            raise ValueError(f"SCTHead.in_index: got {tuple(in_index)}, allowed the index of one map")
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            dropout_ratio=dropout_ratio,
            input_transform="multiple_select",
            **kwargs,
        )
        self.norm = NormAct(in_channels[0])
        self.conv = ConvNormAct(in_channels[0], channels, 3, bias=True)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps, of which (B, in_channels, h, w) is selected -> logits (B, num_classes, h, w)."""
        (x,) = self._transform_inputs(inputs)
        return self.cls_seg(self.conv(self.norm(x)))
