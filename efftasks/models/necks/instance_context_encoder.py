"""The neck of SparseInst: pyramid pooling on the coarsest map, a top-down pyramid, all maps fused to one.

Sources: SparseInst (arXiv 2203.12827, section 3.2); PSPNet (arXiv 1612.01105, section 3.2) for the pooled context; FPN
(arXiv 1612.03144). Convolutions have batch norms where those of the authors have biases: their network is pretrained
and trained with batches of 64; with norms it can also be trained from scratch. Folded, both are the same network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.necks.base import Neck
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["InstanceContextEncoder", "PooledContext", "part_means"]


def part_means(x: Tensor, parts: int) -> Tensor:
    """Adaptive average pooling to ``parts`` x ``parts`` as two matrix products.

    As in PyTorch, parts overlap by a cell where a side is not divisible, and a side shorter than the parts repeats
    cells. The products export at any size, fixed or dynamic, and their gradient is deterministic on a GPU; PyTorch's
    adaptive pooling exports as dozens of gathers where sides are not divisible, and its gradient is not deterministic.

    Args:
        x: (B, C, H, W).
        parts: of each side.

    Returns:
        (B, C, parts, parts).
    """
    if parts == 1:
        return x.mean((2, 3), keepdim=True)
    height, width = x.shape[-2:]
    return _mean_matrix(parts, height, x) @ (x @ _mean_matrix(parts, width, x).T)


def _mean_matrix(parts: int, size: int, like: Tensor) -> Tensor:
    """(parts, size): row i has equal weights from floor(i size / parts) up to ceil((i + 1) size / parts)."""
    part = torch.arange(parts, device=like.device)[:, None]
    cell = torch.arange(size, device=like.device)
    # A cell belongs to a part if they overlap; both are in units of 1 / (parts * size) of the side.
    inside = ((cell + 1) * parts > part * size) & (cell * parts < (part + 1) * size)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


class PooledContext(nn.Module):
    """Averages over 1, 2 x 2, 3 x 3 and 6 x 6 parts of a map, each through a 1x1, resized and fused with the map.

    Args:
        channels: of the map, in and out.
        pooled_channels: of each branch.
        parts: the number of parts of a side, for each branch.
    """

    def __init__(self, channels: int, pooled_channels: int, parts: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.parts = tuple(parts)
        # Without norms: a batch norm fails on the global average of a single image.
        self.branches = nn.ModuleList(nn.Conv2d(channels, pooled_channels, 1) for _ in parts)
        self.merge = ConvNormAct(channels + len(self.parts) * pooled_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        pooled = [F.relu(branch(part_means(x, parts))) for parts, branch in zip(self.parts, self.branches)]
        resized = [F.interpolate(part, x.shape[2:], mode="bilinear") for part in pooled]
        return self.merge(torch.cat([*resized, x], dim=1))


@MODELS.register_module()
class InstanceContextEncoder(Neck):
    """Maps whose strides double -> one map at the finest stride, with the context of the coarsest.

    Sides of the input are multiples of the coarsest stride. Maps are upsampled by bilinear interpolation, whose
    gradient on a GPU is deterministic if deterministic algorithms are enabled.

    Args:
        in_specs: maps of the backbone, finest first; given by the detector.
        channels: of all maps inside and of the output; a quarter of them in each pooled branch.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int = 256) -> None:
        strides = [spec.stride for spec in in_specs]
        if any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"in_specs: got strides {strides}, expected each to be twice the one before")
        if channels < 4:
            raise ValueError(f"channels: got {channels}, allowed are integers from 4")
        super().__init__(strides[:1])
        self.laterals = nn.ModuleList(ConvNormAct(spec.channels, channels, 1, act=None) for spec in in_specs)
        self.context = PooledContext(channels, channels // 4)
        self.outputs = nn.ModuleList(ConvNormAct(channels, channels, 3, act=None) for _ in in_specs)
        self.fusion = ConvNormAct(len(strides) * channels, channels, 1, act=None)

    def last_parts(self) -> list[nn.Module]:
        """The fusion convolution."""
        return [self.fusion]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps (B, C_i, H_i, W_i), finest first -> one map (B, channels, H_0, W_0)."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, features)]
        maps[-1] = self.context(maps[-1])
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], scale_factor=2.0, mode="nearest")
        size = features[0].shape[2:]
        finest, *coarser = [output(x) for output, x in zip(self.outputs, maps)]
        resized = [F.interpolate(x, size, mode="bilinear") for x in coarser]
        return (self.fusion(torch.cat([finest, *resized], dim=1)),)
