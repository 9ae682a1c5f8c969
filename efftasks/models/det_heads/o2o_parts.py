"""What a dense one-to-one head says of an object beside class and box: parts that it is composed of.

Legend: B images, A points of all levels, M objects (padded), N pairs of a point and an object, K detections, n numbers
that a part says of each point.
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
    """Points with the objects that they answer for, or may come to answer for; image after image."""

    image: Tensor  # int64 (N,), rising
    target: Tensor  # int64 (N,): index into the M objects
    points: Tensor  # (N, 2) xy in pixels of the network input
    strides: Tensor  # (N, 1) pixels

    def of(self, values: Tensor) -> Tensor:
        """The rows (N, ...) of what is known of all objects (B, M, ...)."""
        return values[self.image, self.target]

    def chosen(self, rows: Tensor) -> Pairs:
        """Some of them, by their indices, which rise."""
        return Pairs(*(part[rows] for part in self))

    def per_image(self, values: Tensor, batch: int) -> tuple[Tensor, ...]:
        """Values (N, ...) of the pairs, image by image."""
        return values.split(torch.bincount(self.image, minlength=batch).tolist())


class ObjectPart(Protocol):
    """Something that is predicted for every object, as a module.

    Training asks for losses of assigned pairs; the assigner may ask how well a point fits an object already.

    Attributes:
        ranks: whether the score of a detection is to tell of that fit, too, and not of the box's alone.
    """

    ranks: bool

    def new_branch(self) -> nn.Module:
        """A new module: maps, finest first -> (B, n, A)."""
        ...

    def shared(self, features: Sequence[Tensor]) -> Any:
        """What all points share, of the maps (B, C_i, H_i, W_i); whatever the part itself understands."""
        ...

    def overlap(self, values: Tensor, shared: Any, pairs: Pairs, targets: PaddedTargets) -> Tensor:
        """How well predictions (N, n) fit their objects: (N,) in [0, 1], NaN where that is not annotated."""
        ...

    def losses(
        self, values: Tensor, shared: Any, pairs: Pairs, targets: PaddedTargets, weights: Tensor, total: Tensor
    ) -> dict[str, Tensor]:
        """Losses of predictions (N, n), each pair times its weight (N,), over the sum ``total`` of all processes."""
        ...

    def common_losses(self, shared: Any, targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of what is shared, once for both branches; of modules that only training has."""
        ...

    def decode(self, values: Tensor, shared: Any, points: Tensor, strides: Tensor) -> Tensor:
        """Predictions (B, K, n) of detections at points (B, K, 2) with strides (B, K, 1) -> output."""
        ...

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """What :meth:`decode` gives for an input of this size in pixels."""
        ...
