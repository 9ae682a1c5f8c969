"""Low-rank layers: a linear layer or 1x1 convolution becomes two with few channels between them.

Sources: Denil et al. (arXiv 1306.0543) for the factors; the best approximation of a matrix by one of rank r, in the
Frobenius norm, is its truncated singular value decomposition (Eckart and Young, 1936), and its squared error is the sum
of the squared singular values left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from efftasks.compression.transform import DecideContext, ModelTransform, called_modules, replace_modules
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["LowRank", "energy_rank", "low_rank_factors"]


def low_rank_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors ``left @ right`` of the best approximation of a matrix with at most this rank.

    Each singular value is split evenly between both. Computed in float64.

    Args:
        weight: (M, N).
        rank: 1 to min(M, N).

    Returns:
        (M, rank) and (rank, N), in the precision of ``weight``.
    """
    left, values, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    roots = values[:rank].sqrt()
    return (left[:, :rank] * roots).to(weight.dtype), (roots[:, None] * right[:rank]).to(weight.dtype)


def energy_rank(weight: Tensor, share: float) -> int:
    """The lowest rank whose best approximation of a matrix has this share of its squared Frobenius norm."""
    energy = torch.linalg.svdvals(weight.detach().double()).square().cumsum(0)
    return min(int((energy < share * energy[-1]).sum()) + 1, len(energy))


@MODEL_TRANSFORMS.register_module()
class LowRank(ModelTransform):
    """Replaces linear layers and 1x1 convolutions by a sequence of two, named ``reduce`` and ``expand``.

    Args:
        layers: shell patterns of module names: ``backbone.*``. Of the matching modules, each ``Linear`` or 1x1
            ``Conv2d`` without groups and padding is replaced, if that makes it smaller.
        ratio: remaining share of a layer's weights, in (0, 1); it sets the rank if ``energy`` does not.
        energy: remaining share of the squared singular values, in (0, 1]; it sets the rank if there are trained
            weights. None for ``ratio`` always.

    Raises:
        ValueError: a share is not in its range.
    """

    def __init__(self, layers: Sequence[str], ratio: float = 0.5, energy: float | None = None) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"LowRank.layers: got {layers!r}, expected a list of patterns of module names")
        if not 0 < ratio < 1:
            raise ValueError(f"LowRank.ratio: got {ratio}, allowed are numbers between 0 and 1")
        if energy is not None and not 0 < energy <= 1:
            raise ValueError(f"LowRank.energy: got {energy}, allowed are numbers above 0, at most 1")
        self.layers, self.ratio, self.energy = tuple(layers), ratio, energy

    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """``{"ranks": {name of a layer: rank}}``.

        Raises:
            UserError: a pattern matches no layer that could be replaced.
        """
        candidates = {name: module for name, module in called_modules(model) if _is_pointwise(module)}
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise UserError(
                    f"model_transforms: LowRank.layers: got {pattern!r}, which names no linear layer or 1x1 "
                    f"convolution of the model; it has {', '.join(list(candidates)[:3])}, ..."
                )
        if self.energy is not None and not context.has_weights:
            MMLogger.get_current_instance().warning(
                f"LowRank: the network has no trained weights, so that ratio={self.ratio} decides and not "
                f"energy={self.energy}; set load_from to decide from weights"
            )
        ranks = {}
        for name, module in candidates.items():
            if any(fnmatchcase(name, pattern) for pattern in self.layers):
                weight = _matrix(module)
                rank = self._rank(weight, context.has_weights)
                if rank * sum(weight.shape) < weight.numel():
                    ranks[name] = rank
        return dict(ranks=ranks)

    def _rank(self, weight: Tensor, has_weights: bool) -> int:
        if self.energy is not None and has_weights:
            return energy_rank(weight, self.energy)
        return max(1, int(self.ratio * weight.numel() / sum(weight.shape)))

    @staticmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model with two layers for each layer of the plan."""
        modules = dict(called_modules(model))
        new = {}
        for name, rank in plan["ranks"].items():
            layer = modules.get(name)
            if layer is None or not _is_pointwise(layer) or not 1 <= rank <= min(_matrix(layer).shape):
                raise UserError(f"LowRank: the plan has rank {rank} for {name!r}, which the model has no layer for")
            new[name] = _two_layers(layer, rank)
        replace_modules(model, new)
        return model


def _is_pointwise(module: nn.Module) -> bool:
    # Exact types: subclasses may have another forward.
    if type(module) is nn.Linear:
        return True
    if type(module) is not nn.Conv2d:
        return False
    return module.kernel_size == (1, 1) and module.groups == 1 and module.padding == (0, 0)


def _matrix(layer: nn.Module) -> Tensor:
    """The weight (out, in) of a pointwise layer."""
    weight: Any = layer.weight
    return weight.flatten(1)


def _two_layers(layer: nn.Module, rank: int) -> nn.Sequential:
    """Two layers of this rank; the first has the stride, the second the bias."""
    left, right = low_rank_factors(_matrix(layer), rank)
    outputs, inputs = left.shape[0], right.shape[1]
    bias: Any = layer.bias
    reduce: nn.Linear | nn.Conv2d
    expand: nn.Linear | nn.Conv2d
    if isinstance(layer, nn.Conv2d):
        stride: Any = layer.stride
        reduce = nn.Conv2d(inputs, rank, 1, stride=stride, bias=False, device=left.device, dtype=left.dtype)
        expand = nn.Conv2d(rank, outputs, 1, bias=bias is not None, device=left.device, dtype=left.dtype)
    else:
        reduce = nn.Linear(inputs, rank, bias=False, device=left.device, dtype=left.dtype)
        expand = nn.Linear(rank, outputs, bias=bias is not None, device=left.device, dtype=left.dtype)
    reduce.weight.data.copy_(right.reshape(reduce.weight.shape))
    expand.weight.data.copy_(left.reshape(expand.weight.shape))
    if bias is not None and expand.bias is not None:
        expand.bias.data.copy_(bias)
    pair = nn.Sequential(OrderedDict(reduce=reduce, expand=expand)).train(layer.training)
    return pair.requires_grad_(layer.weight.requires_grad)  # type: ignore[arg-type]
