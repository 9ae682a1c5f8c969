"""Terms of the loss of a pose detector, each a small module with one ``weight``. All are sums; the caller normalizes.

Source: DETRPose (arXiv 2506.13027) and its public code. The classification term
is :class:`~efftasks.models.losses.set_terms.VarifocalTerm` with OKS as target.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.pose_heads.pose_raw import PoseOutput
from efftasks.registry import MODELS

__all__ = ["MatchedPoses", "OKSTerm", "PoseL1Term"]


class MatchedPoses(NamedTuple):
    """An output, its N pairs with objects, and the inputs of terms on these pairs."""

    output: PoseOutput
    matching: Matching
    labels: Tensor  # int64 (N,)
    poses: Tensor  # (N, P, 2): the predicted ones
    keypoints: Tensor  # (N, P, 3): the objects', as :class:`PoseTargets` has them
    similarity: Tensor  # (N,): OKS of the two, with gradient

    @property
    def iou(self) -> Tensor:
        """OKS (N,) without gradient: the classification target, in place of the IoU of boxes."""
        return self.similarity.detach()


@MODELS.register_module()
class PoseL1Term(nn.Module):
    """L1 distance of the annotated keypoints, as fractions of the image."""

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, matched: MatchedPoses) -> Tensor:
        """Sum over pairs and annotated keypoints, a scalar."""
        target, annotated = matched.keypoints.split((2, 1), dim=-1)
        return self.weight * ((matched.poses - target).abs() * annotated).sum()


@MODELS.register_module()
class OKSTerm(nn.Module):
    """1 - OKS."""

    def __init__(self, weight: float = 4.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, matched: MatchedPoses) -> Tensor:
        """Sum over pairs, a scalar."""
        return self.weight * (1 - matched.similarity).sum()
