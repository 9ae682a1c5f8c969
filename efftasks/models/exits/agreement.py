"""How well two answers for the same images agree, as a soft F1 score."""

from __future__ import annotations

import torch
from torch import Tensor

from efftasks.ops.boxes import box_iou
from efftasks.structures.instances import DetectionTensors

__all__ = ["agreement"]


def agreement(a: DetectionTensors, b: DetectionTensors, minimum_iou: float = 0.5) -> Tensor:
    """Twice the agreeing scores over all scores, (B,) in [0, 1]; 1 where neither answer has any score.

    Each detection is compared with the one of its class in the other answer that it overlaps most; what agrees is the
    smaller of both scores, times the IoU if that is at least ``minimum_iou``. Scores count squared, since hundreds of
    detections of a low score are no answer.
    """
    iou = box_iou(a.boxes[:, :, None], b.boxes[:, None])  # (B, K, L)
    iou = iou * (a.labels[:, :, None] == b.labels[:, None])
    strength_a, strength_b = a.scores.square(), b.scores.square()
    agreeing = torch.minimum(strength_a[:, :, None], strength_b[:, None]) * iou * (iou >= minimum_iou)
    both = agreeing.amax(2).sum(1) + agreeing.amax(1).sum(1)
    total = strength_a.sum(1) + strength_b.sum(1)
    return torch.where(total > 0, both / total.clamp(min=1e-9), torch.ones_like(total)).clamp(0, 1)
