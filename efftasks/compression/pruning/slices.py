"""The weights of a network that is cut as parts of the weights before: unlike cutting, with gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.record import mixes

__all__ = ["Slices", "parameter_slices", "sliced"]

# Name of a parameter -> dimension -> what is left: the number of the first channels, or ascending indices.
Slices = dict[str, dict[int, "int | Tensor"]]


def parameter_slices(model: nn.Module, plan: Mapping[str, Any]) -> Slices:
    """What a plan leaves of each parameter of a model; parameters that lose nothing are left out.

    Args:
        model: before :func:`~efftasks.compression.pruning.slicing.cut`.
        plan: see :mod:`~efftasks.compression.pruning.slicing`.
    """
    layers, parameters = dict(model.named_modules()), dict(model.named_parameters())
    slices: Slices = {}
    for name, sides in plan["axes"].items():
        for side, number in sides.items():
            for parameter, dim in _parameters_of(name, layers.get(name), side):
                if parameter in parameters:
                    slices.setdefault(parameter, {})[dim] = _left(plan["kept"][number])
    return slices


def _parameters_of(name: str, layer: nn.Module | None, side: str) -> list[tuple[str, int]]:
    """The parameters that have the channels of a side, and along which dimension."""
    if layer is None:
        return [(name, int(side.removeprefix("dim")))]
    if side == "in":
        return [(f"{name}.weight", 1)] if mixes(layer) else []
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


def _left(kept: Sequence[int]) -> int | Tensor:
    return len(kept) if len(kept) == kept[-1] + 1 else torch.tensor(kept)


def sliced(parameter: Tensor, slices: Mapping[int, int | Tensor]) -> Tensor:
    """A part of a parameter, through which its gradient flows; a view where the first channels are left."""
    for dim, left in slices.items():
        parameter = parameter.narrow(dim, 0, left) if isinstance(left, int) else parameter.index_select(dim, left)
    return parameter
