"""Set matching of poses: one query for each object, with the lowest sum of pose and class costs.

Sources: DETRPose (arXiv 2506.13027) and its public code; the matching is that of DETR (arXiv 2005.12872,
section 3.1). The cost of scores is :class:`~efftasks.models.assigners.hungarian.FocalCost`.

Legend: L outputs (of decoder layers), B images, Q queries, P keypoints, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efftasks.models.assigners.hungarian import Matching, match_images
from efftasks.models.pose_heads.pose_raw import PoseOutput, PoseTargets
from efftasks.registry import TASK_UTILS

__all__ = ["OKSCost", "PoseL1Cost", "PoseMatcher"]


@TASK_UTILS.register_module()
class PoseL1Cost:
    """L1 distance of the annotated keypoints, as fractions of the image, summed over keypoints."""

    def __init__(self, weight: float = 10.0) -> None:
        self.weight = weight

    def __call__(self, scores: Tensor, poses: Tensor, targets: PoseTargets) -> Tensor:
        """Scores (B, Q, M) of the objects' classes, poses (B, Q, P, 2) and the objects -> cost (B, Q, M)."""
        target, annotated = targets.keypoints[:, None].split((2, 1), dim=-1)
        return self.weight * ((poses[:, :, None] - target).abs() * annotated).sum((-2, -1))


@TASK_UTILS.register_module()
class OKSCost:
    """Negative object keypoint similarity (OKS)."""

    def __init__(self, weight: float = 4.0) -> None:
        self.weight = weight

    def __call__(self, scores: Tensor, poses: Tensor, targets: PoseTargets) -> Tensor:
        """As :meth:`PoseL1Cost.__call__`."""
        return -self.weight * targets.similarity(poses[:, :, None], targets.keypoints[:, None], targets.areas[:, None])


@TASK_UTILS.register_module()
class PoseMatcher:
    """One-to-one matching of several outputs with the objects of a batch.

    Args:
        costs: their sum is minimized; configs of cost classes.
    """

    def __init__(self, costs: Sequence[dict]) -> None:
        self.costs = [TASK_UTILS.build(cost) for cost in costs]

    @torch.no_grad()
    def __call__(self, outputs: Sequence[PoseOutput], targets: PoseTargets) -> list[Matching]:
        """Match each output with the objects. All costs are copied to the CPU in one transfer.

        Args:
            outputs: L, of equal shapes.
            targets: the objects.

        Returns:
            One matching an output, on the CPU.
        """
        costs = torch.stack([self._cost(output, targets) for output in outputs])
        costs_on_cpu = torch.nan_to_num(costs, nan=1.0).cpu().numpy()
        valid = targets.valid.cpu().numpy()
        return [match_images(cost, valid) for cost in costs_on_cpu]

    def _cost(self, output: PoseOutput, targets: PoseTargets) -> Tensor:
        """Cost (B, Q, M) of one output."""
        labels = targets.labels[:, None].expand(-1, output.logits.shape[1], -1)
        scores = output.logits.float().sigmoid().gather(2, labels)
        return torch.stack([cost(scores, output.poses.float(), targets) for cost in self.costs]).sum(0)
