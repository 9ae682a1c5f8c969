"""Task-aligned label assignment for dense, anchor-free detectors.

Sources: TOOD (arXiv 2108.07755, section 3.3) for the metric ``score^alpha * IoU^beta`` and the soft target;
YOLOv10 (arXiv 2405.14458, section 3.1) for using one metric with top-10 and with top-1, so that the positive of the
one-to-one branch is the best positive of the one-to-many branch ("consistent dual assignment"); RTMO (arXiv 2312.07526,
section 3.3) for OKS in the metric. Mask IoU is used in the same way.

Legend: B images, A points, C classes, M boxes (padded to the fullest image of the batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from efftasks.ops.boxes import box_iou, points_inside
from efftasks.registry import TASK_UTILS
from efftasks.structures.instances import PaddedTargets

__all__ = ["Assignment", "Overlap", "OverlapFunction", "TaskAlignedAssigner"]


class Overlap(NamedTuple):
    """The overlap of predictions with objects by something else than boxes: mask IoU, OKS."""

    values: Tensor  # (N,) in [0, 1]; NaN where nothing is annotated
    affects_score: bool  # whether the classification target includes it


# Indices (N,) of images, objects and points -> overlaps of these pairs.
OverlapFunction = Callable[[Tensor, Tensor, Tensor], Sequence[Overlap]]
_CANDIDATES = 3  # times topk: the points of an object for which other overlaps than that of boxes are computed


class Assignment(NamedTuple):
    """The object that each point is assigned to."""

    foreground: Tensor  # bool (B, A)
    target: Tensor  # int64 (B, A): index into the M boxes; 0 where not foreground
    quality: Tensor  # float (B, A) in [0, 1]: the soft classification target; 0 where not foreground
    ignored: Tensor  # bool (B, A): background inside a crowd region, masked out of the loss


@TASK_UTILS.register_module()
class TaskAlignedAssigner:
    """Assigns to each object the points with the highest alignment metric ``score^alpha * IoU^beta``.

    Args:
        topk: points selected for an object, by metric.
        keep: how many of them stay assigned after each point that two objects selected went to the one with the larger
            overlap; None keeps all. ``topk=7, keep=1`` is one-to-one: an object that loses its best point gets its next
            best.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        min_side: pixels; shorter sides of a box are widened to this for the test whether a point lies inside, so that
            an object between the points of the finest map gets one.
    """

    def __init__(
        self, topk: int = 10, keep: int | None = None, alpha: float = 0.5, beta: float = 6.0, min_side: float = 16.0
    ) -> None:
        if topk < 1 or (keep is not None and not 1 <= keep <= topk):
            raise ValueError(f"topk and keep: got {topk} and {keep}, allowed are 1 <= keep <= topk")
        self.topk = topk
        self.keep = keep
        self.alpha = alpha
        self.beta = beta
        self.min_side = min_side

    @torch.no_grad()
    def __call__(
        self,
        scores: Tensor,
        boxes: Tensor,
        points: Tensor,
        targets: PaddedTargets,
        other_overlaps: OverlapFunction | None = None,
        other_weight: float = 1.0,
    ) -> Assignment:
        """Assign points to objects.

        Args:
            scores: (B, A, C) in [0, 1].
            boxes: (B, A, 4) xyxy in pixels of the network input.
            points: (A, 2) xy, same frame.
            targets: the objects; M may be 0.
            other_overlaps: of masks or keypoints. They are computed for the best ``3 * topk`` points of each object by
                box overlap; the overlap of the metric is then the weighted mean of box IoU and these. The quality
                averages box IoU and those with ``affects_score``.
            other_weight: of each of them in that mean, where box IoU has 1.

        Returns:
            The assignment of every point.
        """
        num_images, num_points, _ = scores.shape
        num_targets = targets.labels.shape[1]
        if num_targets == 0:
            zeros = scores.new_zeros(num_images, num_points)
            return Assignment(zeros.bool(), zeros.long(), zeros, zeros.bool())

        inside = points_inside(points, self._widened(targets.boxes)) & targets.valid[..., None]  # (B, M, A)
        candidates = inside & ~targets.ignored[..., None]
        overlap = score_overlap = box_iou(targets.boxes[:, :, None], boxes[:, None]) * candidates
        class_score = scores.transpose(1, 2).gather(1, targets.labels[..., None].expand(-1, -1, num_points))
        metric = class_score.pow(self.alpha) * overlap.pow(self.beta) * candidates
        if other_overlaps is not None and other_weight > 0:
            candidates = self._top(metric, candidates, _CANDIDATES * self.topk)
            overlap, score_overlap = _averaged(overlap, candidates, other_overlaps, other_weight)
            metric = class_score.pow(self.alpha) * overlap.pow(self.beta) * candidates

        assigned = self._top(metric, candidates, self.topk)
        # A point is assigned to one object: the one with the largest overlap. (max, not argmax, would keep ties.)
        target = torch.where(assigned, overlap, -1.0).argmax(dim=1)  # (B, A)
        assigned = assigned & (target[:, None] == torch.arange(num_targets, device=target.device)[:, None])
        if self.keep is not None:
            assigned = self._top(metric, assigned, self.keep)

        foreground = assigned.any(dim=1)
        metric, score_overlap = metric * assigned, score_overlap * assigned
        scale = score_overlap.amax(dim=-1, keepdim=True) / metric.amax(dim=-1, keepdim=True).clamp(min=1e-9)
        quality = (metric * scale).amax(dim=1)
        ignored = (inside & targets.ignored[..., None]).any(dim=1) & ~foreground
        return Assignment(foreground, target * foreground, quality, ignored)

    def _widened(self, boxes: Tensor) -> Tensor:
        center = (boxes[..., :2] + boxes[..., 2:]) / 2
        half = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=self.min_side / 2)
        return torch.cat([center - half, center + half], dim=-1)

    @staticmethod
    def _top(metric: Tensor, allowed: Tensor, count: int) -> Tensor:
        """Mask (B, M, A) of the ``count`` highest metrics a row among the allowed ones."""
        ranked = torch.where(allowed, metric, -1.0)
        best = ranked.topk(min(count, metric.shape[-1]), dim=-1).indices
        return torch.zeros_like(allowed).scatter_(-1, best, True) & allowed


def _averaged(
    box_overlap: Tensor, candidates: Tensor, other_overlaps: OverlapFunction, weight: float
) -> tuple[Tensor, Tensor]:
    """Weighted means (B, M, A) of box overlaps and others at the candidates, 0 elsewhere.

    The first is of all overlaps, the second of those that the classification target includes.
    """
    pairs = candidates.nonzero(as_tuple=True)
    others = other_overlaps(*pairs)
    score_others = [overlap for overlap in others if overlap.affects_score]
    return _mean(box_overlap, pairs, others, weight), _mean(box_overlap, pairs, score_others, weight)


def _mean(box_overlap: Tensor, pairs: tuple[Tensor, ...], others: Sequence[Overlap], weight: float) -> Tensor:
    total = box_overlap[pairs]
    count = torch.ones_like(total)
    for values, _ in others:
        total = total + weight * values.to(total.dtype).nan_to_num(nan=0.0)
        count = count + weight * ~values.isnan()
    return torch.zeros_like(box_overlap).index_put(pairs, total / count)
