"""Groups of channels that must be kept or removed together, found by following a model's channels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.record import Axis, Trace, channel_count, mixes
from efftasks.compression.pruning.tracing import keeps_modes, trace, train_quietly
from efftasks.structures.protocols import Exportable, HasStages

__all__ = ["ChannelGroup", "ModelGroups", "Member", "Outputs", "find_groups", "outputs_of"]


Outputs = Callable[[nn.Module, Tensor], Any]  # a model, images (1, 3, H, W) -> tensors in containers


class Member(NamedTuple):
    """An axis of weights with channels of a group."""

    axis: Axis
    channels: tuple[tuple[int, ...], ...]  # of each unit: indices along the axis, possibly none


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of the outputs of layers whose maps are added, multiplied, or read alike.

    A unit is the least that can be removed: often one channel, two where a map is split in halves, all channels of a
    group of a grouped convolution.

    Attributes:
        name: of the first layer whose outputs they are.
        members: all axes with these channels.
        size: units.
    """

    name: str
    members: tuple[Member, ...]
    size: int

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the layers whose outputs they are."""
        return tuple(member.axis.layer for member in self.members if member.axis.side == "out")

    def width(self) -> int:
        """The channels of a unit in the member that has fewest of them."""
        return min(len(channels) for member in self.members for channels in member.channels if channels)

    def step(self, round_to: int) -> int:
        """The least number of units whose channels are a multiple of ``round_to``."""
        width = self.width()
        return round_to // math.gcd(round_to, width)


class ModelGroups(NamedTuple):
    """Groups of a model, and why others are left alone."""

    groups: list[ChannelGroup]
    excluded: dict[str, str]  # name of a layer -> reason
    unknown: tuple[str, ...]  # operations without a rule
    training_only: frozenset[str]  # layers that inference does not call


def outputs_of(model: nn.Module, images: Tensor) -> Any:
    """The maps that the head of a model reads and its raw prediction, or the output of any other module."""
    return tuple(model.stages(images)) if isinstance(model, HasStages) else model(images)


def find_groups(model: nn.Module, size: tuple[int, int], outputs: Outputs = outputs_of) -> ModelGroups:
    """Find the groups of a model whose channels may be removed.

    What ``outputs`` returns keeps its channels: by default the feature maps that heads read and the raw prediction. The
    model is run twice, in training mode, whose branches may read the same maps, and in evaluation mode.

    Args:
        model: it is not changed.
        size: (height, width) of its input.
        outputs: runs a model on images.
    """
    parameter = next(model.parameters())
    device = parameter.device

    def runs(network: nn.Module) -> Iterator[Any]:
        images = torch.rand(1, 3, *size, device=device, dtype=parameter.dtype)
        train_quietly(network)
        yield outputs(network, images)
        network.eval()
        yield outputs(network, images)

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        record = trace(model, runs)
    groups, excluded = [], {}
    for producers in _sets_of_producers(record):
        group, reason = _group(record, producers)
        if group is None:
            excluded.update(dict.fromkeys(producers, reason))
        else:
            groups.append(group)
    inferred = _inferred(model, record, torch.zeros(1, 3, *size, device=device, dtype=parameter.dtype))
    unused = frozenset(record.layers) - record.called - inferred
    return ModelGroups(groups, excluded, tuple(sorted(record.unknown)), unused)


def _inferred(model: nn.Module, record: Trace, images: Tensor) -> frozenset[str]:
    """Names of the layers that the exported file has, also those on maps that heads read; none if it has no file.

    Their channels are not followed, so that these layers keep them.
    """
    called: set[str] = set()
    if not isinstance(model, Exportable):
        return frozenset()
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))  # type: ignore[misc]
        for name, layer in record.layers.items()
    ]
    try:
        with torch.no_grad(), keeps_modes(model):
            model.eval()
            model.infer(images)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(called)


def _sets_of_producers(record: Trace) -> list[list[str]]:
    """Names of layers whose outputs share channels, in the order of the model."""
    layer_of: dict[int, str] = {}  # representative of labels -> first layer with that output
    sets: dict[str, list[str]] = {}
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    names = [name for name, layer in record.layers.items() if Axis(name, "out") in record.axes]
    for name in names:
        first[name] = name
        for label in record.axes[Axis(name, "out")]:
            other = layer_of.setdefault(record.labels.find(label), name)
            a, b = root(other), root(name)
            if a != b:
                first[b] = a
    for name in names:
        sets.setdefault(root(name), []).append(name)
    return list(sets.values())


def _group(record: Trace, producers: list[str]) -> tuple[ChannelGroup | None, str]:
    """A group, or the reason against it."""
    if not record.called.intersection(producers):
        return None, "only training uses it"
    find = record.labels.find
    units: dict[int, int] = {}  # representative -> number of the unit
    for name in producers:
        for label in record.axes[Axis(name, "out")]:
            reason = record.labels.reason(label)
            if reason is not None:
                return None, reason
            units.setdefault(find(label), len(units))
    members = []
    for axis, labels in record.axes.items():
        places: dict[int, list[int]] = defaultdict(list)
        for i, label in enumerate(labels):
            unit = units.get(find(label))
            if unit is not None:
                places[unit].append(i)
        if places:
            members.append(Member(axis, tuple(tuple(places.get(unit, ())) for unit in range(len(units)))))
    if len(units) == 1:
        return None, "all of them depend on one another"
    reason = _flaw(record.layers, members)
    if reason:
        return None, reason
    return ChannelGroup(producers[0], tuple(members), len(units)), ""


def _flaw(layers: Mapping[str, nn.Module], members: list[Member]) -> str:
    """What is wrong with a group; empty if nothing is."""
    if not any(member.axis.side == "in" and mixes(layers[member.axis.layer]) for member in members):
        return "no layer reads them"
    for member in members:
        if member.axis.layer in layers:
            layer = layers[member.axis.layer]
            if any(i >= channel_count(layer, member.axis.side) for unit in member.channels for i in unit):
                return f"{member.axis.layer} has fewer channels"
        if len(Counter(len(unit) for unit in member.channels if unit)) > 1:
            return f"{member.axis.layer} has parts of different widths of them"
    return ""
