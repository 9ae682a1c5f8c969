"""Group sparsity: units of channels that matter little shrink towards zero, all of their weights together.

Source: the proximal operator of the group lasso (Yuan and Lin, 2006, section 2), on the groups of DepGraph (arXiv
2301.12900, section 3.3). A step on weights instead of a term of the loss is independent of the optimizer: Adam and Muon
would normalize the gradient of such a term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from efftasks.compression.pruning.groups import ChannelGroup
from efftasks.compression.pruning.record import mixes

__all__ = ["GroupShrinker"]


class _Part(NamedTuple):
    """Weights of units along one dimension of a parameter."""

    parameter: Tensor
    dim: int
    channels: Tensor  # indices along the dimension
    units: Tensor  # the unit of each


class GroupShrinker:
    """Shrinks units of groups.

    Args:
        model: its parameters are changed in place; frozen ones neither count nor change.
        groups: of the model.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        self._groups = [(group.size, list(_parts(model, group))) for group in groups]

    @torch.no_grad()
    def norms(self) -> list[Tensor]:
        """For each group the norms of all weights of each unit."""
        return [_squares(size, parts).sqrt() for size, parts in self._groups]

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Lower the norm of every unit by a share of the mean of its group, at most to zero."""
        for (_, parts), norms in zip(self._groups, self.norms()):
            factors = (1 - share * norms.mean() / norms.clamp(min=1e-30)).clamp(min=0)
            for part in parts:
                scale = torch.ones(part.parameter.shape[part.dim], device=factors.device)
                scale[part.channels] = factors[part.units].float()
                shape = [1] * part.parameter.dim()
                shape[part.dim] = -1
                part.parameter.mul_(scale.view(shape))


def _parts(model: nn.Module, group: ChannelGroup) -> Any:
    layers, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for member in group.members:
        layer, side = layers.get(member.axis.layer), member.axis.side
        channels = torch.tensor([i for unit in member.channels for i in unit])
        units = torch.tensor([unit for unit, places in enumerate(member.channels) for _ in places])
        if layer is None:
            dims = [(parameters[member.axis.layer], int(side.removeprefix("dim")))]
        elif side == "in":
            dims = [(layer.weight, 1)] if mixes(layer) else []
        else:
            dims = [(layer.weight, 0), (layer.bias, 0)]
        for parameter, dim in dims:
            if isinstance(parameter, nn.Parameter) and parameter.requires_grad:
                yield _Part(parameter, dim, channels.to(parameter.device), units.to(parameter.device))


def _squares(size: int, parts: Sequence[_Part]) -> Tensor:
    total = torch.zeros(size, dtype=torch.float64, device=parts[0].parameter.device if parts else None)
    for part in parts:
        weight = (
            part.parameter.double().transpose(0, part.dim).flatten(1)
            if part.parameter.dim() > 1
            else (part.parameter.double()[:, None])
        )
        total.index_add_(0, part.units, weight.square().sum(1)[part.channels])
    return total
