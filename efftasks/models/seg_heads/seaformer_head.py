"""SeaFormer's fusions and light head: the finest map, gated by each coarser one in turn, is classified.

Source: SeaFormer (arXiv 2301.13156), section 3.1 (fusion block, light segmentation head). The order of layers and the
channels of the published sizes follow the authors' code (fudan-zvg/SeaFormer, Apache-2.0), in which the 1x1 before the
classifier is depthwise; with its weights the outputs are the same. Written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.registry import MODELS

__all__ = ["GatedFusion", "SeaFormerHead"]


class GatedFusion(nn.Module):
    """A fine map times a gate in 0 to 1 from a coarse one: section 3.1, the fusion block.

    Args:
        fine_channels: of the fine map.
        coarse_channels: of the coarse map.
        channels: of the output.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.fine = ConvNormAct(fine_channels, channels, 1, act=None)
        self.gate = ConvNormAct(coarse_channels, channels, 1, act=None)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine_channels, H, W), (B, coarse_channels, h, w) -> (B, channels, H, W)."""
        gate = F.hardsigmoid(self.gate(coarse))
        return self.fine(fine) * F.interpolate(gate, fine.shape[2:], mode="bilinear", align_corners=False)


@MODELS.register_module()
class SeaFormerHead(BaseDecodeHead):
    """The finest map, gated by every coarser one from fine to coarse, then classified at its stride.

    The published variants, on the default maps of ``SeaFormer`` (any maps from fine to coarse work):

    ======= ================= ======== ===================
    variant fusion_channels   channels in_index
    ======= ================= ======== ===================
    tiny    (64,)             96       (0, 1, 2)
    small   (96,)             128      (0, 1, 2)
    base    (128,)            160      (0, 1, 2)
    large   (128, 160)        192      (0, 1, 2, 3)
    ======= ================= ======== ===================

    Args:
        in_channels: of the selected maps, two or more; set by the segmentor.
        channels: of the last fusion, which the classifier reads.
        num_classes: classes.
        in_index: the maps, finest first.
        fusion_channels: of the fusions before the last: two fewer than there are maps.
        kwargs: of mmseg's decode heads: loss_decode, dropout_ratio, ignore_index, sampler.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        in_index: Sequence[int] = (0, 1, 2),
        fusion_channels: Sequence[int] = (64,),
        **kwargs: Any,
    ) -> None:
        if len(in_index) < 2:
            raise ValueError(f"in_index: got {tuple(in_index)}, allowed the indices of two or more maps")
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            input_transform="multiple_select",
            **kwargs,
        )
        fine, *coarser = in_channels
        if len(fusion_channels) != len(coarser) - 1:
            raise ValueError(
                f"fusion_channels: got {len(fusion_channels)} numbers, expected {len(coarser) - 1}: one for each "
                "fusion but the last"
            )
        widths = [fine, *fusion_channels, channels]
        self.fusions = nn.ModuleList(
            GatedFusion(before, coarse, after) for before, coarse, after in zip(widths, coarser, widths[1:])
        )
        self.scale = ConvNormAct(channels, channels, 1, groups=channels, act="relu")

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps, finest first -> logits (B, num_classes, h, w) at the finest map's stride."""
        fused, *coarser = self._transform_inputs(inputs)
        for fusion, coarse in zip(self.fusions, coarser):
            fused = fusion(fused, coarse)
        return self.cls_seg(self.scale(fused))
