"""Losses of instance masks inside the boxes of their objects, each a small module with one ``weight``.

Sources: YOLACT (arXiv 1904.02689, section 3.3) for binary cross-entropy over the box, divided by its area; CondInst
(arXiv 2003.05664, section 3.3) for Dice.

Legend: N masks, h x w cells.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.ops.masks import mask_dice
from efftasks.registry import MODELS

__all__ = ["BoxMaskBCELoss", "BoxMaskDiceLoss"]


@MODELS.register_module()
class BoxMaskBCELoss(nn.Module):
    """Binary cross-entropy, a mean over the cells in the box."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor, window: Tensor) -> Tensor:
        """Losses (N,) of logits (N, h, w) against targets (N, h, w) in [0, 1] in cells bool (N, h, w)."""
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * window
        return self.weight * each.sum((1, 2)) / window.sum((1, 2)).clamp(min=1)


@MODELS.register_module()
class BoxMaskDiceLoss(nn.Module):
    """1 - Dice of the cells in the box: small and large objects have the same weight."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor, window: Tensor) -> Tensor:
        """As :meth:`BoxMaskBCELoss.forward`."""
        return self.weight * (1 - mask_dice(logits.sigmoid() * window, targets * window))
