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
    """Which objects have a mask to learn from, bool (B, M): not those without one, not crowd regions, not padding."""
    wanted = targets.valid & ~targets.ignored
    if targets.masks is None:
        return torch.zeros_like(wanted)
    return wanted & (targets.masks.flatten(2).amax(2) > 0) if wanted.numel() else wanted


@TASK_UTILS.register_module()
class MaskMatcher:
    """Pairs that are best in sum of ``dice ** alpha * score ** beta``, each object with one prediction.

    Args:
        alpha: exponent of the Dice coefficient of predicted probabilities and the object's mask.
        beta: exponent of the score of the object's class.
    """

    def __init__(self, alpha: float = 0.8, beta: float = 0.2) -> None:
        self.alpha, self.beta = alpha, beta

    @torch.no_grad()
    def __call__(self, logits: Tensor, masks: Tensor, targets: PaddedTargets) -> Matching:
        """Match the predictions of each image with its objects.

        Where there are more objects than predictions, the objects that fit worst have none.

        Args:
            logits: (B, N, C), of the classes.
            masks: (B, N, h, w), logits.
            targets: the objects; their masks are (B, M, h, w).

        Returns:
            The pairs, on the CPU, sorted by image and prediction.
        """
        wanted = learnable_objects(targets)
        if targets.masks is None or not bool(wanted.any()):
            empty = torch.zeros(0, dtype=torch.long)
            return Matching(empty, empty, empty)
        fit = self._fit(logits.float(), masks.float(), targets.labels, targets.masks.float() / 255)
        return match_images(torch.nan_to_num(-fit).cpu().numpy(), wanted.cpu().numpy())

    def _fit(self, logits: Tensor, masks: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
        """Float32 throughout -> (B, N, M), what is maximised."""
        score = logits.sigmoid().gather(2, labels[:, None].expand(-1, logits.shape[1], -1))
        found, wanted = masks.sigmoid().flatten(2), wanted.flatten(2)
        with torch.autocast(found.device.type, enabled=False):  # half precision would make ties
            both = found @ wanted.transpose(1, 2)
        squares = found.square().sum(2)[:, :, None] + wanted.square().sum(2)[:, None]
        dice = 2 * both / squares.clamp(min=1e-6)
        return dice**self.alpha * score**self.beta
