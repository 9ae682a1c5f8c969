"""Cutting channels out of layers by a plan of indices, for any weights.

A plan, as plain data: ``{"axes": {"neck.merge.conv": {"in": 0, "out": 1}}, "kept": [[0, 1, 3], [2, 4]]}``. Each side of
a layer has the number of a list of ascending indices of the channels that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.groups import ChannelGroup
from efftasks.compression.pruning.record import channel_count, mixes
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import CountsChannels

__all__ = ["Removed", "cut", "kept_plan", "mask"]

Removed = Mapping[str, Sequence[int]]  # name of a group -> numbers of its units that are removed


def kept_plan(model: nn.Module, groups: Iterable[ChannelGroup], removed: Removed) -> dict[str, Any]:
    """The plan that removes units of groups."""
    gone: dict[tuple[str, str], set[int]] = {}
    for group in groups:
        for member in group.members:
            channels = {i for unit in removed.get(group.name, ()) for i in member.channels[unit]}
            if channels:
                gone.setdefault(member.axis, set()).update(channels)
    numbers: dict[tuple[int, ...], int] = {}
    axes: dict[str, dict[str, int]] = {}
    for (layer, side), channels in sorted(gone.items()):
        kept = tuple(i for i in range(_length(model, layer, side)) if i not in channels)
        axes.setdefault(layer, {})[side] = numbers.setdefault(kept, len(numbers))
    return dict(axes=axes, kept=[list(kept) for kept in numbers])


def cut(model: nn.Module, plan: Mapping[str, Any]) -> None:
    """Remove the channels that a plan does not keep, in place.

    Raises:
        UserError: the plan does not fit the model.
    """
    for name, sides in plan["axes"].items():
        kept = {side: plan["kept"][number] for side, number in sides.items()}
        for side, indices in kept.items():
            count = _length(model, name, side)
            if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < count:
                raise UserError(
                    f"Prune: the plan keeps channels {_short(indices)} of {name!r} ({side}), which the model does not "
                    f"have: it has {count}"
                )
        layer = _layer(model, name)
        if layer is None:
            for side, indices in kept.items():
                _cut_parameter(model, name, int(side.removeprefix("dim")), indices)
        elif isinstance(layer, nn.BatchNorm2d):
            _cut_norm(layer, kept["norm"])
        else:
            _cut_weights(layer, name, kept)
    _tell(model, plan)


def mask(model: nn.Module, groups: Iterable[ChannelGroup], removed: Removed) -> None:
    """Set the weights to zero with which layers read removed channels, in place: the network that :func:`cut` makes."""
    layers = dict(model.named_modules())
    for group in groups:
        for member in group.members:
            layer = layers.get(member.axis.layer)
            if member.axis.side == "in" and layer is not None and mixes(layer):
                weight: Any = layer.weight
                with torch.no_grad():
                    weight[:, [i for unit in removed.get(group.name, ()) for i in member.channels[unit]]] = 0


def _layer(model: nn.Module, name: str) -> nn.Module | None:
    """The layer of that name; None if it is a parameter."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    return module if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) else None


def _length(model: nn.Module, name: str, side: str) -> int:
    """Channels of an axis; 0 if the model has no such axis."""
    layer = _layer(model, name)
    if layer is None:
        parameter = dict(model.named_parameters()).get(name)
        dim = int(side[3:]) if side.startswith("dim") and side[3:].isdigit() else -1
        return parameter.shape[dim] if parameter is not None and 0 <= dim < parameter.dim() else 0
    sides = ("norm",) if isinstance(layer, nn.BatchNorm2d) else ("in", "out")
    if side not in sides:
        return 0
    return channel_count(layer, side)


def _cut_parameter(model: nn.Module, name: str, dim: int, kept: Sequence[int]) -> None:
    path, _, key = name.rpartition(".")
    owner = model.get_submodule(path)
    setattr(owner, key, _selected(getattr(owner, key), dim, kept))


def _cut_norm(norm: nn.BatchNorm2d, kept: Sequence[int]) -> None:
    norm.weight, norm.bias = _selected(norm.weight, 0, kept), _selected(norm.bias, 0, kept)
    if norm.running_mean is not None and norm.running_var is not None:
        index = torch.tensor(kept, device=norm.running_mean.device)
        norm.running_mean, norm.running_var = norm.running_mean[index], norm.running_var[index]
    norm.num_features = len(kept)


def _cut_weights(layer: Any, name: str, kept: Mapping[str, Sequence[int]]) -> None:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    inputs, outputs = layer.weight.shape[1] * groups, layer.weight.shape[0]
    left = {"in": len(kept.get("in", range(inputs))), "out": len(kept.get("out", range(outputs)))}
    kept_groups = groups * left["out"] // outputs  # groups of a grouped convolution that are left
    if groups > 1 and (left["in"] * groups != kept_groups * inputs or left["out"] * groups != kept_groups * outputs):
        raise UserError(f"Prune: the plan keeps parts of groups of {name!r}, expected whole ones")
    if "out" in kept:
        layer.weight = _selected(layer.weight, 0, kept["out"])
        if layer.bias is not None:
            layer.bias = _selected(layer.bias, 0, kept["out"])
    if "in" in kept and groups == 1:
        layer.weight = _selected(layer.weight, 1, kept["in"])
    if isinstance(layer, nn.Conv2d):
        layer.in_channels, layer.out_channels = left["in"], left["out"]
        layer.groups = kept_groups if groups > 1 else 1
    else:
        layer.in_features, layer.out_features = left["in"], left["out"]


def _selected(parameter: Tensor, dim: int, kept: Sequence[int]) -> nn.Parameter:
    index = torch.tensor(kept, device=parameter.device)
    return nn.Parameter(parameter.detach().index_select(dim, index), requires_grad=parameter.requires_grad)


def _tell(model: nn.Module, plan: Mapping[str, Any]) -> None:
    """Tell modules that count channels of their layers."""
    for name, module in model.named_modules():
        if isinstance(module, CountsChannels):
            prefix = f"{name}." if name else ""
            for layer, sides in plan["axes"].items():
                if layer.startswith(prefix):
                    for side, number in sides.items():
                        module.keep_channels(layer.removeprefix(prefix), side, plan["kept"][number])


def _short(indices: Sequence[int]) -> str:
    return str(list(indices)) if len(indices) <= 4 else f"[{indices[0]}, ..., {indices[-1]}]"
