"""The Dice loss of class maps, for labels with ignored pixels and rare classes.

Sources: V-Net (arXiv 1606.04797, section 3) for the loss, with probabilities in first power (arXiv 1707.03237,
section 2.1). ``DiceLoss`` of mmseg 1.x (Apache-2.0) differs: its ``ignore_index`` is the index of a channel to leave
out, so that ignored pixels always count as wrong; it sums over all classes before the division, so that rare classes
have little weight; and it fails with a pixel sampler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from efftasks.registry import MODELS

__all__ = ["SoftDiceLoss"]


@MODELS.register_module()
class SoftDiceLoss(nn.Module):
    """1 - Dice of softmax probabilities, a mean over the classes in the labels of the batch.

    The sums are over the batch, as those of mean IoU are over the data set: images weigh by their pixels of a class.
    Classes that are in no label are left out.

    Args:
        loss_weight: factor.
        loss_name: name in the log; without the prefix ``loss_`` it is logged and not trained on.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_dice") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        seg_logit: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """The loss, a scalar; 0 where all pixels are ignored.

        Args:
            seg_logit: (B, C, H, W).
            label: int (B, H, W), class indices.
            weight: (B, H, W), of the pixels.
            avg_factor: divisor of the sum over classes, instead of their number.
            ignore_index: label of ignored pixels.
            kwargs: further arguments of mmseg's losses, not used.
        """
        scores = seg_logit.softmax(1, dtype=torch.promote_types(seg_logit.dtype, torch.float32))
        valid = label != ignore_index
        counts = valid.to(scores.dtype) if weight is None else valid * weight.to(scores.dtype)
        classes = torch.where(valid, label, 0).long()
        true_scores = scores.gather(1, classes[:, None])[:, 0] * counts

        zeros = scores.new_zeros(scores.shape[1])
        predicted = (scores * counts[:, None]).sum((0, 2, 3))
        true = zeros.index_add(0, classes.flatten(), counts.flatten())
        intersection = zeros.index_add(0, classes.flatten(), true_scores.flatten())
        present = true > 0
        dice = 2 * intersection / torch.where(present, predicted + true, 1)
        number = present.sum().clamp(min=1) if avg_factor is None else avg_factor
        return self.loss_weight * ((1 - dice) * present).sum() / number
