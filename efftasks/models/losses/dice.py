"""The Dice loss of class maps: what mmseg's is not where pixels are ignored or classes are rare.

Sources: V-Net (arXiv 1606.04797, section 3) for the loss, with probabilities in first power (arXiv 1707.03237,
section 2.1). mmseg 1.x has a ``DiceLoss`` (Apache-2.0), which takes ``ignore_index`` for the index of a channel to
leave out, so that ignored pixels count as wrong whatever is predicted there; which sums over all classes before it
divides, so that a rare class weighs as little as its pixels; and which fails when a head has a pixel sampler.
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

    The sums run over the batch, as those of mean IoU run over the data: an image with a few pixels of a class does
    not weigh as much as one that is full of it. Classes that no label names are left out.

    Args:
        loss_weight: factor.
        loss_name: name in the log; what does not begin with ``loss_`` is logged and not trained on.
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
            avg_factor: what to divide the sum over classes by, instead of their number.
            ignore_index: label of the pixels to ignore.
            kwargs: what mmseg passes to other losses.
        """
        scores = seg_logit.softmax(1, dtype=torch.promote_types(seg_logit.dtype, torch.float32))
        valid = label != ignore_index
        counts = valid.to(scores.dtype) if weight is None else valid * weight.to(scores.dtype)
        known = torch.where(valid, label, 0).long()
        hits = scores.gather(1, known[:, None])[:, 0] * counts

        nothing = scores.new_zeros(scores.shape[1])
        predicted = (scores * counts[:, None]).sum((0, 2, 3))
        true = nothing.index_add(0, known.flatten(), counts.flatten())
        both = nothing.index_add(0, known.flatten(), hits.flatten())
        present = true > 0
        dice = 2 * both / torch.where(present, predicted + true, 1)
        number = present.sum().clamp(min=1) if avg_factor is None else avg_factor
        return self.loss_weight * ((1 - dice) * present).sum() / number
