"""What is noted of a run: the labels of channels of tensors and of weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.compression.pruning.labels import Labels

__all__ = ["LAYERS", "Axis", "Channels", "Trace", "channel_count", "mixes", "tensors_of"]

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


class Axis(NamedTuple):
    """One side of a layer's weights: ``in`` or ``out`` of a convolution or linear layer, ``norm`` of a batch norm.

    A parameter of another module has its own name as ``layer``, and ``dim0``, ``dim1``, ... as ``side``.
    """

    layer: str
    side: str


class Channels(NamedTuple):
    """The labels of a tensor."""

    dim: int  # that has the channels
    labels: tuple[int, ...]


@dataclass
class Trace:
    """What a run told.

    Attributes:
        axes: labels of each axis of the weights that the run used.
        labels: their sets.
        layers: by name; a layer with several names has its first.
        unknown: names of operations without a rule.
        called: names of the layers that the last run called.
    """

    labels: Labels = field(default_factory=Labels)
    axes: dict[Axis, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    _calling: set[str] = field(default_factory=set)
    _tensors: dict[int, tuple[Tensor, Channels]] = field(default_factory=dict)  # a tensor that is kept keeps its id

    def of(self, tensor: Any) -> Channels | None:
        """The labels of a tensor; None if it has none."""
        entry = self._tensors.get(id(tensor))
        return None if entry is None else entry[1]

    def set(self, tensor: Tensor, channels: Channels) -> None:
        """Give a tensor its labels. A tensor that already has some, since it was changed in place, ties both."""
        before = self.of(tensor)
        if before is not None and before != channels:
            self.tie(before, channels, "a change in place")
        self._tensors[id(tensor)] = (tensor, channels)

    def tie(self, one: Channels, other: Channels, what: str) -> None:
        """Merge the labels of two tensors of equal shape."""
        if one.dim == other.dim and len(one.labels) == len(other.labels):
            self.labels.tie(one.labels, other.labels)
        else:
            self.lock(one, what)
            self.lock(other, what)

    def lock(self, channels: Channels | None, reason: str) -> None:
        """Lock the channels of a tensor."""
        if channels is not None:
            self.labels.lock(channels.labels, reason)

    def lock_all(self, values: Any, reason: str) -> None:
        """Lock the channels of all tensors in nested containers."""
        for tensor in tensors_of(values):
            self.lock(self.of(tensor), reason)

    def call(self, layer: str) -> None:
        """Note that the run calls a layer."""
        self._calling.add(layer)

    def axis(self, axis: Axis, count: int) -> tuple[int, ...]:
        """The labels of an axis, new ones at its first use."""
        if axis not in self.axes:
            self.axes[axis] = self.labels.new(count)
        return self.axes[axis]

    def end_run(self) -> None:
        """Free the tensors of a run."""
        self._tensors.clear()
        self.called, self._calling = self._calling, set()


def tensors_of(values: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_of(value)
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_of(value)


def channel_count(layer: nn.Module, side: str) -> int:
    """Channels of a side of a layer, read from its weights."""
    weight: Any = layer.weight
    if side == "in":
        groups: Any = layer.groups if isinstance(layer, nn.Conv2d) else 1
        return weight.shape[1] * groups
    return weight.shape[0]


def mixes(layer: nn.Module) -> bool:
    """Whether a layer mixes all channels of its input: to remove one of them is then the same as to read zeros."""
    return not isinstance(layer, nn.Conv2d) or layer.groups == 1
