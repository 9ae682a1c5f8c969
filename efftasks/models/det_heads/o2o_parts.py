"""Parts of a dense one-to-one head: predictions of an object beside class and box, such as masks and keypoints.

Legend: B images, A points of all levels, M objects (padded), N pairs of a point and an object, K detections, n channels
of a part at each point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from efftasks.structures.instances import PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["ObjectPart", "Pairs"]


class Pairs(NamedTuple):
    """Points with the objects that they are assigned to, or may be; ordered by image."""

    image: Tensor  # int64 (N,), ascending
    target: Tensor  # int64 (N,): index into the M objects
    points: Tensor  # (N, 2) xy in pixels of the network input
    strides: Tensor  # (N, 1) pixels

    def gather(self, values: Tensor) -> Tensor:
        """The values (N, ...) of the pairs' objects, of those of all objects (B, M, ...)."""
        return values[self.image, self.target]

    def select(self, rows: Tensor) -> Pairs:
        """The pairs at some indices, which ascend."""
        return Pairs(*(field[rows] for field in self))

    def per_image(self, values: Tensor, batch: int) -> tuple[Tensor, ...]:
        """Values (N, ...) of the pairs, split by image."""
        return values.split(torch.bincount(self.image, minlength=batch).tolist())


class ObjectPart(Protocol):
    """A module that predicts something of every object. Its overlap with objects is a part of the assigner's metric.

    Attributes:
        affects_score: whether the classification target includes that overlap, beside box IoU.
    """

    affects_score: bool

    def new_branch(self) -> nn.Module:
        """A new module: maps, finest first -> (B, n, A)."""
        ...

    def shared(self, features: Sequence[Tensor]) -> Any:
        """What is computed once for all points from the maps (B, C_i, H_i, W_i), of any type."""
        ...

    def overlap(self, values: Tensor, shared: Any, pairs: Pairs, targets: PaddedTargets) -> Tensor:
        """Overlap (N,) in [0, 1] of predictions (N, n) with their objects; NaN where it is not annotated."""
        ...

    def losses(
        self, values: Tensor, shared: Any, pairs: Pairs, targets: PaddedTargets, weights: Tensor, total: Tensor
    ) -> dict[str, Tensor]:
        """Losses of predictions (N, n), weighted by (N,), over ``total``, the mean sum of weights of processes."""
        ...

    def common_losses(self, shared: Any, targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of ``shared``, once for both branches; their modules exist in training only."""
        ...

    def decode(self, values: Tensor, shared: Any, points: Tensor, strides: Tensor) -> Tensor:
        """Predictions (B, K, n) of detections at points (B, K, 2) with strides (B, K, 1) -> output."""
        ...

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """What :meth:`decode` gives for an input of this size in pixels."""
        ...

    def candidates(self, values: Tensor, shared: Any, points: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """Predictions (B, A, n) at points (A, 2) with strides (A, 1) -> tensors that a runtime's decoder takes."""
        ...

    def candidate_outputs(self, height: int, width: int, count: int) -> tuple[OutputSpec, ...]:
        """What :meth:`candidates` gives of ``count`` points, for an input of this size in pixels."""
        ...
