"""Losses of instance masks and of set predictions with them, each a small module with one ``weight``.

All are sums over their rows; the caller normalizes. Sources: focal loss arXiv 1708.02002; Dice loss V-Net (arXiv
1606.04797, section 3), with squares in the denominator; their use for masks SOLO (arXiv 1912.04488) and SparseInst
(arXiv 2203.12827, section 3.5).

Legend: P pairs of a predicted mask and an object, (h, w) cells of a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.ops.masks import mask_dice
from efftasks.registry import MODELS

__all__ = ["MaskBCELoss", "MaskDiceLoss", "SigmoidFocalLoss"]


@MODELS.register_module()
class SigmoidFocalLoss(nn.Module):
    """Focal loss: binary cross-entropy of each class, with less weight where the score is close to its target.

    Args:
        weight: of the loss.
        alpha: weight of positives; negatives have ``1 - alpha``.
        gamma: exponent of the distance of the score from its target.
    """

    def __init__(self, weight: float = 2.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (..., C) against targets (..., C), 0 or 1, summed to a scalar."""
        logits = logits.float()
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        distance = (logits.sigmoid() - targets).abs()
        balance = torch.where(targets > 0.5, self.alpha, 1 - self.alpha)
        return self.weight * (balance * distance.pow(self.gamma) * entropy).sum()


@MODELS.register_module()
class MaskBCELoss(nn.Module):
    """Binary cross-entropy, a mean over the cells of a mask, summed over the masks."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (P, h, w) against targets (P, h, w) in [0, 1], a scalar; 0 for P = 0."""
        cells = logits.shape[-2] * logits.shape[-1]
        return self.weight * F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum") / cells


@MODELS.register_module()
class MaskDiceLoss(nn.Module):
    """1 - Dice coefficient of the probabilities, summed over masks: small and large objects have the same weight."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (P, h, w) against targets (P, h, w) in [0, 1], a scalar; 0 for P = 0."""
        return self.weight * (1 - mask_dice(logits.float().sigmoid(), targets)).sum()
