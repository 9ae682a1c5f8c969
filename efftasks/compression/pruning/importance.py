"""How much a network needs each unit of a group of channels.

Sources: magnitude of a group, DepGraph (arXiv 2301.12900, section 3.3); scales of batch norms, Network Slimming (arXiv
1708.06519); first-order Taylor expansion of the loss (Molchanov et al., arXiv 1906.10771, equation 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.groups import ChannelGroup, Member
from efftasks.compression.pruning.record import mixes
from efftasks.structures.features import GUIDE_PREFIX

__all__ = ["Scores", "bn_scale", "first_ones", "magnitude", "taylor"]

Scores = Mapping[str, Tensor]  # name of a group -> (units,) in float64, the higher the more important


def magnitude(model: nn.Module, groups: Iterable[ChannelGroup]) -> Scores:
    """The sum of squares of all weights that a unit has in its layers, divided by the mean of its group."""
    weights = _weights(model)
    return {
        group.name: _normalized(
            sum(
                _unit_sums(member, _squares(weights[member.axis.layer], member.axis.side))
                for member in group.members
                if member.axis.side != "in" or _reads(model, member)  # else its weights are counted as outputs
            )
        )
        for group in groups
    }


def bn_scale(model: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """The sum of absolute scales of batch norms, divided by the mean of its group; :func:`magnitude` without norms."""
    weights = _weights(model)
    scores = dict(magnitude(model, groups))
    for group in groups:
        norms = [member for member in group.members if member.axis.side == "norm"]
        if norms:
            scales = (_unit_sums(norm, weights[norm.axis.layer].abs()) for norm in norms)
            scores[group.name] = _normalized(sum(scales))
    return scores


def taylor(model: nn.Module, groups: Sequence[ChannelGroup], losses: Iterable[Tensor]) -> Scores:
    """The squared change of the loss if a unit is removed, in first order, as the mean over batches.

    To remove a unit is to set the weights to zero with which layers read it: the change is minus the sum of these
    weights times their gradients. Scores of groups are not normalized, since all are changes of one loss.

    Frozen weights have gradients meanwhile, too: what training leaves alone matters to the loss no less.

    Args:
        model: gradients of its parameters are None afterwards.
        groups: of the model.
        losses: of the model, one for each batch, with gradients.
    """
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    count = 0
    with _all_trained(model):
        for loss in losses:
            model.zero_grad(set_to_none=True)
            loss.backward()
            count += 1
            for name, change in _changes(model, groups).items():
                totals[name] += change.square()
        model.zero_grad(set_to_none=True)
    return {name: total / max(count, 1) for name, total in totals.items()}


def _changes(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """The sum of weights times gradients of each unit, by name of a group."""
    products = {
        name: (weight * weight.grad).detach().double().cpu()
        for name, weight in _weights(model).items()
        if weight.grad is not None
    }
    changes = {}
    for group in groups:
        change = torch.zeros(group.size, dtype=torch.float64)
        for member in group.members:
            product = products.get(member.axis.layer)
            if member.axis.side == "in" and product is not None and _reads(model, member):
                change += _unit_sums(member, product.transpose(0, 1).flatten(1).sum(1))
        changes[group.name] = change
    return changes


@contextmanager
def _all_trained(model: nn.Module) -> Iterator[None]:
    """Let all weights have gradients but those of a guide, and restore which had."""
    frozen = [
        parameter
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and not name.startswith(GUIDE_PREFIX)
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def first_ones(groups: Iterable[ChannelGroup]) -> Scores:
    """Without trained weights: the first units stay."""
    return {group.name: torch.linspace(1, 0, group.size, dtype=torch.float64) for group in groups}


def _weights(model: nn.Module) -> dict[str, Any]:
    """The weight of a layer by the layer's name, other parameters by their own."""
    named: dict[str, Any] = dict(model.named_parameters())
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            named[name] = layer.weight
    return named


def _reads(model: nn.Module, member: Member) -> bool:
    return mixes(model.get_submodule(member.axis.layer))


def _squares(weight: Tensor, side: str) -> Tensor:
    """Sums of squares for each channel of an axis."""
    dim = {"out": 0, "norm": 0, "in": 1}[side] if not side.startswith("dim") else int(side.removeprefix("dim"))
    return weight.detach().double().cpu().transpose(0, dim).reshape(weight.shape[dim], -1).square().sum(1)


def _unit_sums(member: Member, values: Tensor) -> Tensor:
    """Values of channels, added up for each unit."""
    sums = torch.zeros(len(member.channels), dtype=torch.float64)
    units = torch.tensor([unit for unit, channels in enumerate(member.channels) for _ in channels])
    places = torch.tensor([i for channels in member.channels for i in channels])
    return sums.index_add(0, units, values.detach().double().cpu()[places])


def _normalized(scores: Any) -> Tensor:
    return scores / scores.mean().clamp(min=1e-30)
