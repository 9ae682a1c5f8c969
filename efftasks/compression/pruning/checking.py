"""Proof by running that a cut does what it should: the network without channels is that which reads zeros for them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efftasks.compression.pruning.groups import ChannelGroup, Outputs, outputs_of
from efftasks.compression.pruning.record import tensors_of
from efftasks.compression.pruning.slicing import cut, kept_plan, mask
from efftasks.compression.pruning.tracing import train_quietly

__all__ = ["failing_groups", "is_exact"]

TOLERANCE = 1e-4  # relative; a channel too many or too few changes outputs by percents


def failing_groups(
    model: nn.Module, groups: Sequence[ChannelGroup], size: tuple[int, int], outputs: Outputs = outputs_of
) -> dict[str, str]:
    """Groups that cannot be cut, by name, with the reason; most often none.

    All groups are cut at once, half of their channels. Only if that fails, one after the other.

    Args:
        model: it is not changed.
        groups: of the model.
        size: (height, width) of the input.
        outputs: runs a model on images; what it returns is compared.
    """
    if not groups or is_exact(model, groups, size, outputs):
        return {}
    reason = "a network without its channels does not compute the same as one that reads zeros for them"
    failing = {group.name: reason for group in groups if not is_exact(model, [group], size, outputs)}
    rest = [group for group in groups if group.name not in failing]
    if rest and not is_exact(model, rest, size, outputs):
        failing.update({group.name: f"{reason}, in all groups together" for group in rest})
    return failing


def is_exact(
    model: nn.Module, groups: Sequence[ChannelGroup], size: tuple[int, int], outputs: Outputs = outputs_of
) -> bool:
    """Whether cutting half of the channels of groups equals masking them, in training and in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    dense = _generic(model, generator)
    removed = {
        group.name: torch.randperm(group.size, generator=generator)[: group.size // 2].tolist() for group in groups
    }
    masked, small = copy.deepcopy(dense), dense
    mask(masked, groups, removed)
    images = torch.rand(1, 3, *size, generator=generator).double()
    try:
        cut(small, kept_plan(model, groups, removed))
        return all(
            _equal(a, b)
            for training in (True, False)
            for a, b in zip(*(_run(network, images, training, outputs) for network in (small, masked)), strict=True)
        )
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit
        return False


def _generic(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in float64 whose weights hide nothing: parameters that start as zero are not zero."""
    network = copy.deepcopy(model).cpu().double()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return network


def _run(network: nn.Module, images: Tensor, training: bool, outputs: Outputs) -> list[Tensor]:
    if training:
        train_quietly(network)
    else:
        network.eval()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.random.fork_rng([]), _StayDouble():
            torch.manual_seed(0)
            return [tensor for tensor in tensors_of(outputs(network, images)) if tensor.is_floating_point()]
    finally:
        torch.set_default_dtype(default)


class _StayDouble(TorchFunctionMode):
    """Networks compute some values in float32 for stability under autocast; here they stay in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out.double() if isinstance(out, Tensor) and out.dtype == torch.float32 else out


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= TOLERANCE * (other.norm() + 1e-12))
