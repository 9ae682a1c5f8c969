"""Task-aligned label assignment for dense, anchor-free detectors.

Sources: TOOD (arXiv 2108.07755, section 3.3) for the metric ``score^alpha * IoU^beta`` and the soft target;
YOLOv10 (arXiv 2405.14458, section 3.1) for using one metric with top-10 and with top-1, so that the one-to-one branch
learns from the very prediction which the one-to-many branch likes best ("consistent dual assignment"); RTMO (arXiv
2312.07526, section 3.3) for letting OKS have a say where there are keypoints; mask IoU has one where there are masks.

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

__all__ = ["Assignment", "Fit", "Overlap", "TaskAlignedAssigner"]


class Overlap(NamedTuple):
    """How well points fit objects by something beside their boxes."""

    values: Tensor  # (N,) in [0, 1]; NaN where nothing is annotated
    ranks: bool  # whether scores are to tell of it, too


# What is said of images, objects and points (N,).
Fit = Callable[[Tensor, Tensor, Tensor], Sequence[Overlap]]
_CANDIDATES = 3


class Assignment(NamedTuple):
    """Which object each point answers for."""

    foreground: Tensor  # bool (B, A)
    target: Tensor  # int64 (B, A): index into the M boxes; 0 where not foreground
    quality: Tensor  # float (B, A) in [0, 1]: the soft classification target; 0 where not foreground
    ignored: Tensor  # bool (B, A): background inside a crowd region, left out of the loss


@TASK_UTILS.register_module()
class TaskAlignedAssigner:
    """Gives each object the points whose predictions fit it best in score and in overlap together.

    Args:
        topk: candidates an object may take, by metric.
        keep: of those candidates, how many stay once points wanted by two objects went to the one they overlap more;
            None keeps all. ``topk=7, keep=1`` is a one-to-one assignment in which an object that loses its best point
            falls back on the next.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        min_side: pixels; a shorter side of a box is widened to this for the test whether a point lies inside, so that
            an object between the points of the finest map is not lost.
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
        fit: Fit | None = None,
        fit_weight: float = 1.0,
    ) -> Assignment:
        """Assign.

        Args:
            scores: (B, A, C) in [0, 1].
            boxes: (B, A, 4) xyxy in pixels of the network input.
            points: (A, 2) xy, same frame.
            targets: the objects; M may be 0.
            fit: further overlaps, of masks or keypoints. They are asked for the best candidates by boxes alone, three
                times ``topk`` an object; the overlap is then the mean of that of the boxes and those. The quality is
                that of the boxes and of those that rank.
            fit_weight: of each of them in that mean, where the boxes have 1.

        Returns:
            The assignment of every point.
        """
        num_images, num_points, _ = scores.shape
        num_targets = targets.labels.shape[1]
        if num_targets == 0:
            nothing = scores.new_zeros(num_images, num_points)
            return Assignment(nothing.bool(), nothing.long(), nothing, nothing.bool())

        inside = points_inside(points, self._widened(targets.boxes)) & targets.valid[..., None]  # (B, M, A)
        objects = inside & ~targets.ignored[..., None]
        overlap = ranking = box_iou(targets.boxes[:, :, None], boxes[:, None]) * objects
        class_score = scores.transpose(1, 2).gather(1, targets.labels[..., None].expand(-1, -1, num_points))
        metric = class_score.pow(self.alpha) * overlap.pow(self.beta) * objects
        if fit is not None and fit_weight > 0:
            objects = self._top(metric, objects, _CANDIDATES * self.topk)
            overlap, ranking = _averaged(overlap, objects, fit, fit_weight)
            metric = class_score.pow(self.alpha) * overlap.pow(self.beta) * objects

        wanted = self._top(metric, objects, self.topk)
        # A point answers for one object: the one it overlaps most. (max, not argmax, would keep ties.)
        owner = torch.where(wanted, overlap, -1.0).argmax(dim=1)  # (B, A)
        wanted = wanted & (owner[:, None] == torch.arange(num_targets, device=owner.device)[:, None])
        if self.keep is not None:
            wanted = self._top(metric, wanted, self.keep)

        foreground = wanted.any(dim=1)
        metric, ranking = metric * wanted, ranking * wanted
        scale = ranking.amax(dim=-1, keepdim=True) / metric.amax(dim=-1, keepdim=True).clamp(min=1e-9)
        quality = (metric * scale).amax(dim=1)
        ignored = (inside & targets.ignored[..., None]).any(dim=1) & ~foreground
        return Assignment(foreground, owner * foreground, quality, ignored)

    def _widened(self, boxes: Tensor) -> Tensor:
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        half = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=self.min_side / 2)
        return torch.cat([centre - half, centre + half], dim=-1)

    @staticmethod
    def _top(metric: Tensor, allowed: Tensor, count: int) -> Tensor:
        """Mask (B, M, A) of the ``count`` highest metrics a row among the allowed ones."""
        ranked = torch.where(allowed, metric, -1.0)
        best = ranked.topk(min(count, metric.shape[-1]), dim=-1).indices
        return torch.zeros_like(allowed).scatter_(-1, best, True) & allowed


def _averaged(boxes: Tensor, candidates: Tensor, fit: Fit, weight: float) -> tuple[Tensor, Tensor]:
    """Overlaps (B, M, A) of the candidates, averaged with what ``fit`` says of them by ``weight``; 0 elsewhere.

    First with all that it says, then with what ranks.
    """
    pairs = candidates.nonzero(as_tuple=True)
    said = fit(*pairs)
    return _mean(boxes, pairs, said, weight), _mean(boxes, pairs, [x for x in said if x.ranks], weight)


def _mean(boxes: Tensor, pairs: tuple[Tensor, ...], others: Sequence[Overlap], weight: float) -> Tensor:
    total = boxes[pairs]
    count = torch.ones_like(total)
    for values, _ in others:
        total = total + weight * values.to(total.dtype).nan_to_num(nan=0.0)
        count = count + weight * ~values.isnan()
    return torch.zeros_like(boxes).index_put(pairs, total / count)
