"""The base of backbones that are a stem and a sequence of stages."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from efftasks.models.backbones.base import Backbone, load_weights
from efftasks.structures.features import FeatureSpec

__all__ = ["StagedBackbone"]


class StagedBackbone(Backbone):
    """A stem and a sequence of stages; the outputs of some stages are the maps.

    A constructor sets the attributes and ends with :meth:`finish`.

    Attributes:
        stem: the layers before the first stage.
        stages: one for each stride, in ascending order, up to the last one of ``out_indices``.
        out_indices: indices of the stages whose outputs are returned, in ascending order.
    """

    stem: Any
    stages: nn.ModuleList
    out_indices: tuple[int, ...]

    def finish(
        self,
        specs: Sequence[FeatureSpec],
        frozen: Sequence[str],
        weights: str | os.PathLike | None,
        rename: Callable[[str], str | None],
    ) -> None:
        """Set the specs, freeze parts and load weights.

        Args:
            specs: of all stages.
            frozen: see :meth:`Backbone.freeze`.
            weights: path of a local checkpoint; None for none.
            rename: see :func:`load_weights`.
        """
        self.specs = tuple(specs[i] for i in self.out_indices)
        self.freeze(frozen)
        if weights is not None:
            load_weights(self, weights, rename)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        return self.first_maps(x, len(self.out_indices))

    def first_maps(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> the ``count`` finest of the maps; the stages after them do not run."""
        return self._maps(self.stem(x), 0, count)

    def further_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps of :meth:`first_maps` -> those that are left, at least one."""
        return self._maps(maps[-1], self.out_indices[len(maps) - 1] + 1, len(self.out_indices))

    def _maps(self, x: Tensor, start: int, count: int) -> tuple[Tensor, ...]:
        """The input of stage ``start`` -> the maps from there to the ``count``-th of all."""
        maps = []
        for i in range(start, self.out_indices[count - 1] + 1):
            x = self.stages[i](x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)
