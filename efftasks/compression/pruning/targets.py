"""The size of a network that is cut, and the search for the ratio at which it meets a target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efftasks.compression.pruning.groups import outputs_of
from efftasks.compression.pruning.slicing import cut
from efftasks.structures.errors import UserError
from efftasks.structures.features import GUIDE_PREFIX
from efftasks.structures.protocols import Exportable

__all__ = ["Target", "count_flops", "count_parameters", "smallest_ratio"]

STEPS = 100  # of the ratio


class Target(NamedTuple):
    """What a network must not exceed."""

    name: str  # for messages: FLOPs
    limit: float
    measure: Callable[[nn.Module], float]


def count_flops(model: nn.Module, size: tuple[int, int]) -> float:
    """Operations of one image of (height, width); a multiplication and an addition are two."""
    parameter = next(model.parameters())
    images = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
    network = copy.deepcopy(model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(network, Exportable):
            network.infer(images)
        else:
            outputs_of(network, images)
    return float(counter.get_total_flops())


def count_parameters(model: nn.Module, training_only: Collection[str]) -> float:
    """Parameters without those of a guide and of layers that only training uses."""
    unused = tuple(f"{name}." for name in training_only)
    return float(
        sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if not name.startswith((GUIDE_PREFIX, *unused))
        )
    )


def smallest_ratio(model: nn.Module, plan_at: Callable[[float], dict[str, Any]], target: Target) -> tuple[float, float]:
    """The least ratio, in steps of a hundredth, at which a network meets a target, by bisection.

    Args:
        model: it is not changed.
        plan_at: ratio -> the plan that cuts the model.
        target: what it must meet.

    Returns:
        The ratio, and what was measured there.

    Raises:
        UserError: it is not met at the highest ratio.
    """
    values: dict[str, float] = {}

    def measured(step: int) -> float:
        plan = plan_at(step / STEPS)
        key = repr(
            [[name, {side: len(plan["kept"][i]) for side, i in axes.items()}] for name, axes in plan["axes"].items()]
        )
        if key not in values:
            network = copy.deepcopy(model)
            cut(network, plan)
            values[key] = target.measure(network)
        return values[key]

    low, high = 0, STEPS  # not met at low - 1, met at high
    reached = measured(high)
    if reached > target.limit:
        raise UserError(
            f"Prune: got {target.name} of {reached:.4g} with all channels removed that may be, expected at most "
            f"{target.limit:.4g}; allow more of them (layers, ignore, round_to), or choose a smaller network"
        )
    while low < high:
        middle = (low + high) // 2
        if measured(middle) <= target.limit:
            high = middle
        else:
            low = middle + 1
    return high / STEPS, measured(high)
