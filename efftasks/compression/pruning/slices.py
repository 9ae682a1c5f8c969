"""The weights of a network that is cut as parts of the weights before: unlike cutting, with gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.record import mixes

__all__ = ["Slices", "parameter_slices", "sliced"]

Slices = dict[str, dict[int, Tensor]]  # name of a parameter -> dimension -> ascending indices that are left


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
                    slices.setdefault(parameter, {})[dim] = torch.tensor(plan["kept"][number])
    return slices


def _parameters_of(name: str, layer: nn.Module | None, side: str) -> list[tuple[str, int]]:
    """The parameters that have the channels of a side, and along which dimension."""
    if layer is None:
        return [(name, int(side.removeprefix("dim")))]
    if side == "in":
        return [(f"{name}.weight", 1)] if mixes(layer) else []
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


def sliced(parameter: Tensor, slices: Mapping[int, Tensor]) -> Tensor:
    """A part of a parameter, through which its gradient flows; a view where the first channels are left."""
    for dim, kept in slices.items():
        count = len(kept)
        parameter = parameter.narrow(dim, 0, count) if _is_first(kept) else parameter.index_select(dim, kept)
    return parameter


def _is_first(kept: Sequence[int] | Tensor) -> bool:
    return len(kept) == int(kept[-1]) + 1
