"""Contrastive denoising: queries made from noised objects, to be matched with these objects.

Sources: DN-DETR (arXiv 2203.01305, section 4) for groups, DINO (arXiv 2203.03605, section 3.3) for pairs of a slightly
and a strongly noised copy, of which the second is background.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.query_raw import DenoisingQueries, QueryTargets
from efftasks.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from efftasks.registry import MODELS

__all__ = ["ContrastiveDenoising", "blocked_pairs"]


@MODELS.register_module()
class ContrastiveDenoising(nn.Module):
    """Makes denoising queries from the objects of a batch.

    Args:
        num_classes: C.
        channels: of a query.
        num_queries: approximate number of positives of an image; it sets the number of groups.
        label_noise: the probability that a label is replaced by a random one is half of this.
        box_noise: sides of positives move by up to ``box_noise`` times half the box, those of negatives by once to
            twice as much.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        num_queries: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries = num_classes, num_queries
        self.label_noise, self.box_noise = label_noise, box_noise
        self.embedding = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes)  # the last: padding

    def forward(self, targets: QueryTargets, num_others: int) -> DenoisingQueries:
        """Noised queries of a batch; none at all (D = 0) where no image has an object.

        Args:
            targets: the objects.
            num_others: Q, the number of other queries.
        """
        max_objects = targets.labels.shape[1]
        groups = max(1, self.num_queries // max_objects) if max_objects else 0
        parts = (targets.labels, targets.boxes, targets.valid)
        labels, boxes, valid = (x.repeat(1, 2 * groups, *[1] * (x.dim() - 2)) for x in parts)
        flips = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        random_labels = torch.randint(0, self.num_classes, labels.shape, device=labels.device)
        noised = torch.where(valid, torch.where(flips, random_labels, labels), self.num_classes)
        return DenoisingQueries(
            content=self.embedding(noised),
            boxes=self._move(boxes, max_objects, groups),
            blocked=blocked_pairs(max_objects, groups, num_others, labels.device),
            groups=groups,
        )

    def _move(self, boxes: Tensor, max_objects: int, groups: int) -> Tensor:
        """Move each side by a random part of half the box; the negatives, the second half of a group, move further."""
        negative = torch.arange(2, device=boxes.device).repeat_interleave(max_objects).repeat(groups)[:, None]
        max_shift = boxes[..., 2:].repeat(1, 1, 2) / 2 * self.box_noise
        sign = torch.randint(0, 2, boxes.shape, device=boxes.device) * 2 - 1
        amount = torch.rand(boxes.shape, device=boxes.device) + negative
        moved = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + sign * amount * max_shift).clamp(0, 1))
        return moved.abs()  # a side may have passed its opposite


def blocked_pairs(max_objects: int, groups: int, num_others: int, device: torch.device) -> Tensor:
    """The attention mask, bool (D + Q, D + Q), True where attention is blocked.

    A denoising group attends to itself and to the other queries; the others attend only to themselves.
    """
    count = 2 * max_objects * groups
    group = torch.arange(count + num_others, device=device) // max(1, 2 * max_objects)
    group[count:] = groups  # the others are a group of their own
    same = group[:, None] == group[None]
    to_others = (group[None] == groups) & (group[:, None] < groups)
    return ~(same | to_others)
