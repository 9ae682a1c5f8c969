"""Which channels each width has: plans of the pruning machinery, of nested widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from torch import Tensor, nn

from efftasks.compression.pruning.checking import failing_groups
from efftasks.compression.pruning.groups import ChannelGroup, find_groups
from efftasks.compression.pruning.importance import first_ones, magnitude
from efftasks.compression.pruning.ratios import removed_units
from efftasks.compression.pruning.slicing import kept_plan
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import HasStages, ReadsMaps

__all__ = ["raw_predictions", "relative_plan", "width_plans"]

Plan = Mapping[str, Any]


def raw_predictions(model: nn.Module, images: Tensor) -> Any:
    """What a model predicts from images, of all its heads. The maps in between may lose channels, unlike in pruning."""
    if not isinstance(model, HasStages):
        return model(images)
    stages = model.stages(images)
    heads = model.map_readers if isinstance(model, ReadsMaps) else ()
    return stages.raw, [head(stages.features) for head in heads]


def width_plans(
    model: nn.Module, size: tuple[int, int], widths: Sequence[float], ranked: bool, round_to: int
) -> list[dict[str, Any]]:
    """The plan of each width, on the dense model.

    Args:
        model: the dense one; it is not changed.
        size: (height, width) of its input.
        widths: shares of the channels, in (0, 1].
        ranked: whether the channels with the largest weights stay; else the first ones.
        round_to: layers that lose channels have a multiple of this left.

    Raises:
        UserError: there are no channels to leave out.
    """
    model_groups = find_groups(model, size, raw_predictions)
    failing = failing_groups(model, model_groups.groups, size, raw_predictions)
    for name, reason in failing.items():
        MMLogger.get_current_instance().warning(f"Slimmable: {name} has all channels in every width: {reason}")
    groups: list[ChannelGroup] = [group for group in model_groups.groups if group.name not in failing]
    if not groups:
        raise UserError(
            f"model_transforms: Slimmable: no layer of {type(model).__name__} can be narrower; the channels of all "
            "depend on one another, or are read in a way that is not understood"
        )
    scores = magnitude(model, groups) if ranked else first_ones(groups)
    return [
        kept_plan(model, groups, removed_units(model, groups, scores, "uniform", 1 - width, round_to))
        for width in widths
    ]


def relative_plan(plan: Plan, base: Plan) -> dict[str, Any]:
    """A plan as one on the network that another plan has cut, which keeps at least the same channels.

    Args:
        plan: on the dense model.
        base: on the dense model.
    """
    kept: dict[tuple[int, ...], int] = {}
    axes: dict[str, dict[str, int]] = {}
    for name, sides in plan["axes"].items():
        for side, number in sides.items():
            indices = plan["kept"][number]
            outer = base["axes"].get(name, {}).get(side)
            if outer is not None:
                places = {index: place for place, index in enumerate(base["kept"][outer])}
                indices = [places[index] for index in indices]
                if len(indices) == len(places):
                    continue
            axes.setdefault(name, {})[side] = kept.setdefault(tuple(indices), len(kept))
    return dict(axes=axes, kept=[list(indices) for indices in kept])
