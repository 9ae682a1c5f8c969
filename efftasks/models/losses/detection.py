"""Losses of dense detectors, each a small module with one ``weight``. All are sums; the caller normalizes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.ops.boxes import box_ciou
from efftasks.registry import MODELS

__all__ = ["CIoULoss", "L1BoxLoss", "SoftBCELoss"]


@MODELS.register_module()
class SoftBCELoss(nn.Module):
    """Binary cross-entropy with soft targets, summed."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (..., C) against targets (..., C) in [0, 1], a scalar."""
        return self.weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


@MODELS.register_module()
class CIoULoss(nn.Module):
    """1 - CIoU of pairs of boxes, weighted and summed (arXiv 1911.08287)."""

    def __init__(self, weight: float = 7.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, boxes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of boxes (P, 4) xyxy against targets (P, 4), weighted by (P,), a scalar."""
        return self.weight * ((1 - box_ciou(boxes, targets)) * weights).sum()


@MODELS.register_module()
class L1BoxLoss(nn.Module):
    """L1 distance of box sides, weighted and summed. It has a gradient where boxes do not overlap."""

    def __init__(self, weight: float = 1.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, sides: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of sides (P, 4) against targets (P, 4), both in one unit, weighted by (P,), a scalar."""
        return self.weight * ((sides - targets).abs().mean(-1) * weights).sum()
