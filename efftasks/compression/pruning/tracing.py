"""Follow the channels of a model through a run of it: which channels of which layers are one.

The dependencies of DepGraph (Fang et al., arXiv 2301.12900), found from the calls of a run: a tensor carries a label
for each of its channels. Layers give new labels, sums merge those of their operands, concatenations join them, and so
on (``rules.py``). An operation without a rule locks the channels that it reads: what is not understood is not pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from efftasks.compression.pruning.record import LAYERS, Axis, Channels, Trace, channel_count
from efftasks.compression.pruning.rules import follow

__all__ = ["keeps_modes", "trace", "train_quietly"]


class _Follow(TorchFunctionMode):
    """Applies the rule of each operation outside of layers."""

    def __init__(self, record: Trace, owners: dict[int, str]) -> None:
        super().__init__()
        self.record, self.owners = record, owners
        self.depth = 0  # of layers in layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
