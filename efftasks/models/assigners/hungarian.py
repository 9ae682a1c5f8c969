"""Set matching: one query for each object, with the lowest total cost; all images and decoder layers at once.

Sources: DETR (arXiv 2005.12872, section 3.1) for the matching; Deformable DETR (arXiv 2010.04159) for the focal form of
the class cost; DEIMv2 (arXiv 2509.20787, and its code's configuration) for another cost late in training; Mask2Former
(arXiv 2112.01527, section 3.3) for mask costs on sampled points.

Legend: L outputs (of decoder layers), B images, Q queries, C classes, M objects, P matched pairs, N sampled cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from efftasks.models.det_heads.query_raw import LayerOutput, QueryTargets
from efftasks.ops.boxes import box_giou, box_iou, cxcywh_to_xyxy
from efftasks.ops.cells import object_windows, random_cells
from efftasks.registry import TASK_UTILS

__all__ = ["FocalCost", "GIoUCost", "HungarianMatcher", "L1Cost", "MaskBCECost", "MaskDiceCost", "Matching"]
__all__ += ["ScoreIoUCost", "match_images", "union_of"]


class Matching(NamedTuple):
    """Pairs of queries and objects, image by image; no query is in two pairs."""

    image: Tensor  # int64 (P,)
    query: Tensor  # int64 (P,)
    target: Tensor  # int64 (P,): index into the image's objects

    def to(self, device: torch.device) -> Matching:
        """On another device, in one transfer."""
        return Matching(*torch.stack(tuple(self)).to(device, non_blocking=True).unbind())


@TASK_UTILS.register_module()
class FocalCost:
    """Difference of the focal loss (arXiv 1708.02002) as a positive and as a negative."""

    def __init__(self, weight: float = 2.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, scores: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
        """Scores (N, Q, M) of the objects' classes, boxes and targets (..., 4) cxcywh -> cost (N, Q, M)."""
        negative = (1 - self.alpha) * scores**self.gamma * -(1 - scores + 1e-8).log()
        positive = self.alpha * (1 - scores) ** self.gamma * -(scores + 1e-8).log()
        return self.weight * (positive - negative)


@TASK_UTILS.register_module()
class L1Cost:
    """L1 distance of center and size, as fractions of the image."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, scores: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
        """As :meth:`FocalCost.__call__`."""
        return self.weight * torch.cdist(boxes, targets, p=1)


@TASK_UTILS.register_module()
class GIoUCost:
    """Negative generalized IoU."""

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight

    def __call__(self, scores: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
        """As :meth:`FocalCost.__call__`."""
        pairs = cxcywh_to_xyxy(boxes)[:, :, None], cxcywh_to_xyxy(targets)[:, None]
        return -self.weight * box_giou(*pairs)


@TASK_UTILS.register_module()
class ScoreIoUCost:
    """Negative score times a power of the IoU."""

    def __init__(self, weight: float = 1.0, power: float = 4.0) -> None:
        self.weight, self.power = weight, power

    def __call__(self, scores: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
        """As :meth:`FocalCost.__call__`."""
        pairs = cxcywh_to_xyxy(boxes)[:, :, None], cxcywh_to_xyxy(targets)[:, None]
        return -self.weight * scores * box_iou(*pairs) ** self.power


@TASK_UTILS.register_module()
class MaskBCECost:
    """Binary cross-entropy of masks, a mean over the cells."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, Q, N), targets (B, M, N) in [0, 1] -> cost (B, Q, M)."""
        # BCE(x, t) = softplus(x) - x t
        cost = F.softplus(logits).sum(-1, keepdim=True) - logits @ targets.transpose(1, 2)
        return self.weight * cost / logits.shape[-1]


@TASK_UTILS.register_module()
class MaskDiceCost:
    """1 - Dice of masks, smoothed by 1."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As :meth:`MaskBCECost.__call__`."""
        scores = logits.sigmoid()
        intersection = 2 * scores @ targets.transpose(1, 2) + 1
        return self.weight * (1 - intersection / (scores.sum(-1)[:, :, None] + targets.sum(-1)[:, None] + 1))


@TASK_UTILS.register_module()
class HungarianMatcher:
    """One-to-one matching of several outputs with the objects of a batch.

    Args:
        costs: their sum is minimized; configs of cost classes.
        late_costs: costs that replace all others late in training; None for never.
        late_from: from this fraction of training on. In a config a point of ``schedule`` may stand for it.
        mask_costs: further costs of outputs with masks; they are 0 for objects without a mask.
        mask_share: N over the cells of a mask. The cells are random, and the same for all queries, objects and outputs.
    """

    linked_progress: ClassVar[tuple[str, ...]] = ("late_from",)

    def __init__(
        self,
        costs: Sequence[dict],
        late_costs: Sequence[dict] | None = None,
        late_from: float = 1.0,
        mask_costs: Sequence[dict] = (),
        mask_share: float = 1 / 16,
    ) -> None:
        self.costs = [TASK_UTILS.build(cost) for cost in costs]
        self.late_costs = None if late_costs is None else [TASK_UTILS.build(cost) for cost in late_costs]
        self.late_from = late_from
        self.mask_costs = [TASK_UTILS.build(cost) for cost in mask_costs]
        self.mask_share = mask_share
        self.progress = 0.0

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.progress = fraction

    @torch.no_grad()
    def __call__(self, outputs: Sequence[LayerOutput], targets: QueryTargets) -> list[Matching]:
        """Match each output with the objects. All costs are computed together and copied to the CPU in one transfer.

        Args:
            outputs: L, of equal shapes: logits (B, Q, C) and boxes (B, Q, 4); some may have masks.
            targets: the objects.

        Returns:
            One matching an output, on the CPU.
        """
        batch, max_objects = targets.labels.shape
        count = len(outputs)
        if not max_objects:
            empty = torch.zeros(0, dtype=torch.long)
            return [Matching(empty, empty, empty)] * count
        logits = torch.cat([output.logits for output in outputs]).float()
        boxes = torch.cat([output.boxes for output in outputs]).float()
        labels, target_boxes = targets.labels.repeat(count, 1), targets.boxes.repeat(count, 1, 1)
        scores = logits.sigmoid().gather(2, labels[:, None].expand(-1, logits.shape[1], -1))
        late = self.late_costs is not None and self.progress >= self.late_from
        costs = self.late_costs if late and self.late_costs is not None else self.costs
        cost = sum(cost(scores, boxes, target_boxes) for cost in costs)
        if self.mask_costs and not late:
            cost = cost + self._mask_cost(outputs, targets)
        costs_on_cpu = torch.nan_to_num(cost, nan=1.0).cpu().numpy()
        valid = targets.valid.cpu().numpy()
        return [match_images(costs_on_cpu[i * batch : (i + 1) * batch], valid) for i in range(count)]

    def _mask_cost(self, outputs: Sequence[LayerOutput], targets: QueryTargets) -> Tensor:
        """Cost of masks (L * B, Q, M); 0 for outputs and objects without masks."""
        assert targets.masks is not None
        batch, _, height, width = targets.masks.shape
        count = max(1, round(self.mask_share * height * width))
        cells = random_cells(object_windows(targets.boxes, targets.valid, count), (height, width))[:, None]
        target_masks = targets.masks.flatten(2).gather(2, cells.expand(-1, targets.masks.shape[1], -1)).float() / 255
        has_mask = targets.masked()[:, None]
        costs = []
        for output in outputs:
            if output.masks is None:
                zeros = torch.zeros(batch, output.logits.shape[1], target_masks.shape[1], device=target_masks.device)
                costs.append(zeros)
                continue
            kernels, pixels, bias = output.masks
            sampled = pixels.flatten(2).gather(2, cells.expand(-1, pixels.shape[1], -1))
            logits = (kernels @ sampled).float() + bias
            costs.append(torch.stack([cost(logits, target_masks) for cost in self.mask_costs]).sum(0) * has_mask)
        return torch.cat(costs)


def match_images(costs: np.ndarray, valid: np.ndarray) -> Matching:
    """Match the images of one output: costs (B, Q, M), valid (B, M)."""
    images, queries, objects = [], [], []
    for i, (cost, is_object) in enumerate(zip(costs, valid)):
        columns = is_object.nonzero()[0]
        query, column = linear_sum_assignment(cost[:, columns])
        images.append(np.full(len(query), i))
        queries.append(query)
        objects.append(columns[column])
    parts = (np.concatenate(part).astype(np.int64) for part in (images, queries, objects))
    return Matching(*(torch.from_numpy(part) for part in parts))


def union_of(matchings: Sequence[Matching]) -> Matching:
    """The union of several matchings; a query matched with several objects keeps the most frequent one.

    Among equally frequent ones it keeps the one with the lowest index. Source: D-FINE (arXiv 2410.13842, section 4.3).

    Args:
        matchings: on the CPU.
    """
    pairs = np.stack([torch.cat(part).numpy() for part in zip(*matchings)], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)  # sorted by image, query, target
    order = np.lexsort((unique[:, 2], -counts, unique[:, 1], unique[:, 0]))
    ranked = unique[order]
    new = np.ones(len(ranked), dtype=bool)
    new[1:] = (ranked[1:, :2] != ranked[:-1, :2]).any(axis=1)
    return Matching(*torch.from_numpy(ranked[new]).T.contiguous().unbind())
