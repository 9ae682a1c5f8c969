"""Follow the channels of a model through a run of it: which channels of which layers are one.

The dependencies of DepGraph (Fang et al., arXiv 2301.12900), found from the calls of a run: a tensor carries a label
for each of its channels. Layers give new labels, sums merge those of their operands, concatenations join them, and so
on (``rules.py``). An operation without a rule locks the channels that it reads: what is not understood is not pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efftasks.compression.pruning.labels import Labels

__all__ = ["Axis", "Channels", "Trace", "channel_count", "keeps_modes", "mixes", "tensors_of", "trace", "train_quietly"]

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


class _Follow(TorchFunctionMode):
    """Applies the rule of each operation outside of layers."""

    def __init__(self, record: Trace, owners: dict[int, str]) -> None:
        super().__init__()
        self.record, self.owners = record, owners
        self.depth = 0  # of layers in layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from efftasks.compression.pruning.rules import follow

        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.depth == 0:
            follow(self.record, func, args, kwargs, out, self.owners)
        return out


def trace(model: nn.Module, runs: Callable[[nn.Module], Iterator[Any]]) -> Trace:
    """Follow the channels of a model.

    Args:
        model: its training mode and weights stay as they are.
        runs: runs the model, once or more, and yields after each run the tensors whose channels must stay.
    """
    record = Trace()
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            record.layers[name] = module
        for key, parameter in module.named_parameters(recurse=False):
            owners[id(parameter)] = name if isinstance(module, LAYERS) else f"{name}.{key}".lstrip(".")
    mode = _Follow(record, owners)
    handles = [handle for name, layer in record.layers.items() for handle in _hooks(layer, name, mode)]
    try:
        with torch.no_grad(), keeps_modes(model), mode:
            for kept in runs(model):
                record.lock_all(kept, "its maps are read by the head or are the output of the model")
                record.end_run()
    finally:
        for handle in handles:
            handle.remove()
    return record


def _hooks(layer: nn.Module, name: str, mode: _Follow) -> Iterator[Any]:
    def enter(module: nn.Module, args: Any) -> None:
        mode.depth += 1

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        mode.depth -= 1
        if mode.depth == 0:
            _follow_layer(mode.record, module, name, args, out)

    yield layer.register_forward_pre_hook(enter)
    yield layer.register_forward_hook(leave, always_call=False)


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


def _follow_layer(record: Trace, layer: nn.Module, name: str, args: Any, out: Any) -> None:
    inputs = record.of(args[0]) if args else None
    record.call(name)
    if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
        record.lock(inputs, f"{name} normalizes over channels")
        return
    if isinstance(layer, nn.BatchNorm2d):
        if inputs is not None and layer.affine and inputs.dim == 1:
            record.tie(inputs, Channels(1, record.axis(Axis(name, "norm"), channel_count(layer, "norm"))), name)
            record.set(out, inputs)
        else:
            record.lock(inputs, f"{name} is a batch norm without parameters")
        return
    dim = 1 if isinstance(layer, nn.Conv2d) else out.dim() - 1
    before = record.axis(Axis(name, "in"), channel_count(layer, "in"))
    after = record.axis(Axis(name, "out"), channel_count(layer, "out"))
    if inputs is None:
        record.labels.lock(before, f"the input of {name} has channels that must stay")
    elif inputs.dim == dim and len(inputs.labels) == len(before):
        record.labels.tie(inputs.labels, before)
    else:
        record.lock(inputs, f"{name} reads them along another dimension")
        record.labels.lock(before, f"the input of {name} has channels along another dimension")
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        for group in range(layer.groups):  # all channels of a group stay or go
            members = [*_share(before, group, layer.groups), *_share(after, group, layer.groups)]
            for label in members[1:]:
                record.labels.union(members[0], label)
    record.set(out, Channels(dim, after))


def _share(labels: tuple[int, ...], index: int, count: int) -> tuple[int, ...]:
    size = len(labels) // count
    return labels[index * size : (index + 1) * size]


def train_quietly(model: nn.Module) -> None:
    """Training mode without chance and statistics: norms and dropout, as all modules without children, evaluate."""
    for part in model.modules():
        part.training = next(part.children(), None) is not None  # not train(), which may freeze norms


@contextmanager
def keeps_modes(model: nn.Module) -> Iterator[None]:
    """Restore the training mode of every module afterwards."""
    modes = {part: part.training for part in model.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training  # not train(), which may freeze norms
