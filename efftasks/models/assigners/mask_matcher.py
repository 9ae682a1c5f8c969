"""One-to-one matching of predicted masks with objects, by mask and class together.

Source: SparseInst (arXiv 2203.12827, section 3.5, equation 3).

Legend: B images, N predictions, C classes, M objects, P matched pairs, (h, w) cells of a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efftasks.models.assigners.hungarian import Matching, match_images
from efftasks.registry import TASK_UTILS
from efftasks.structures.instances import PaddedTargets

__all__ = ["MaskMatcher", "learnable_objects"]


def learnable_objects(targets: PaddedTargets) -> Tensor:
    """Which objects have an annotated mask, bool (B, M); crowd regions and padding are left out."""
    learnable = targets.valid & ~targets.ignored
    if targets.masks is None:
        return torch.zeros_like(learnable)
    return learnable & (targets.masks.flatten(2).amax(2) > 0) if learnable.numel() else learnable


@TASK_UTILS.register_module()
class MaskMatcher:
    """One-to-one matching that maximizes the sum of ``dice ** alpha * score ** beta``.

    Args:
        alpha: exponent of the Dice coefficient of predicted probabilities and the object's mask.
        beta: exponent of the score of the object's class.
    """

    def __init__(self, alpha: float = 0.8, beta: float = 0.2) -> None:
        self.alpha, self.beta = alpha, beta

    @torch.no_grad()
    def __call__(self, logits: Tensor, masks: Tensor, targets: PaddedTargets) -> Matching:
        """Match the predictions of each image with its objects.

        If there are more objects than predictions, some objects stay unmatched.

        Args:
            logits: (B, N, C) of the classes.
            masks: (B, N, h, w), logits.
            targets: the objects; their masks are (B, M, h, w).

        Returns:
            The pairs, on the CPU, sorted by image and prediction.
        """
        learnable = learnable_objects(targets)
        if targets.masks is None or not bool(learnable.any()):
            empty = torch.zeros(0, dtype=torch.long)
            return Matching(empty, empty, empty)
        quality = self._quality(logits.float(), masks.float(), targets.labels, targets.masks.float() / 255)
        return match_images(torch.nan_to_num(-quality).cpu().numpy(), learnable.cpu().numpy())

    def _quality(self, logits: Tensor, masks: Tensor, labels: Tensor, target_masks: Tensor) -> Tensor:
        """Matching quality (B, N, M) of float32 inputs, to be maximized."""
        score = logits.sigmoid().gather(2, labels[:, None].expand(-1, logits.shape[1], -1))
        predicted, target = masks.sigmoid().flatten(2), target_masks.flatten(2)
        with torch.autocast(predicted.device.type, enabled=False):  # half precision would make ties
            intersection = predicted @ target.transpose(1, 2)
        squares = predicted.square().sum(2)[:, :, None] + target.square().sum(2)[:, None]
        dice = 2 * intersection / squares.clamp(min=1e-6)
        return dice**self.alpha * score**self.beta
