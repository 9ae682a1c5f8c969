"""Multi-scale deformable sampling: weighted sums of feature maps at a few points, whose locations are tensors.

Sources: Deformable DETR (arXiv 2010.04159, section 4.1) for the operation; RT-DETRv2 (arXiv 2407.17140, section 3) for
its discrete form, which takes the nearest cell and needs no interpolation.

There are three implementations: ``grid_sample`` of PyTorch; ``gather``, with the same result from indexing and a matrix
product, for runtimes where GridSample is missing or wrong; and ``discrete``, an approximation.

Legend: B images, Q queries, G heads, P points of all levels together, D channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SAMPLINGS", "point_constants", "sample_maps"]

SAMPLINGS = ("grid_sample", "gather", "discrete")


def sample_maps(
    maps: Sequence[Tensor], locations: Tensor, weights: Tensor, points: Sequence[int], sampling: str = "grid_sample"
) -> Tensor:
    """Weighted sums of feature maps at points. Outside of a map values are 0 (``discrete``: those of the border).

    Args:
        maps: one (B, G * D, H_i, W_i) per level.
        locations: (B, G, P, 2, Q) xy, from -1 to 1 over the width and height of a map, as in ``grid_sample``; cell
            centers are at ``(2 * i + 1) / W - 1``.
        weights: (B, G, P, Q).
        points: number of points on each level; their sum is P.
        sampling: one of ``SAMPLINGS``.

    Returns:
        (B, Q, G * D).
    """
    if sampling == "grid_sample":
        return _by_grid_sample(maps, locations, weights, points)
    return _by_gather(maps, locations, weights, points, bilinear=sampling == "gather")


def _by_grid_sample(maps: Sequence[Tensor], locations: Tensor, weights: Tensor, points: Sequence[int]) -> Tensor:
    batch, heads, _, queries = weights.shape
    grids = locations.transpose(3, 4).flatten(0, 1).split(list(points), dim=1)
    shares = weights.reshape(batch * heads, 1, -1, queries).split(list(points), dim=2)
    summed = []
    for level, grid, share in zip(maps, grids, shares):
        table = level.reshape(batch * heads, -1, *level.shape[-2:])
        summed.append((F.grid_sample(table, grid, "bilinear", "zeros", False) * share).sum(2))  # (B * G, D, Q)
    total = summed[0]
    for part in summed[1:]:
        total = total + part
    return total.reshape(batch, -1, queries).transpose(1, 2)


def _by_gather(
    maps: Sequence[Tensor], locations: Tensor, weights: Tensor, points: Sequence[int], bilinear: bool
) -> Tensor:
    locations, weights = locations.permute(0, 4, 1, 2, 3), weights.permute(0, 3, 1, 2)
    batch, queries, heads = weights.shape[:3]
    channels = maps[0].shape[1] // heads
    # One table with a row of D numbers per cell of all levels and heads: a single lookup for all points and corners.
    cells = torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)
    table = cells.reshape(-1, channels)
    size, start = point_constants(maps, points, locations)
    inside = (locations + 1) * (0.5 * size)  # in cells, from the map's corner
    if bilinear:
        places, parts = _corners(inside - 0.5, weights, size)
    else:
        nearest = (inside + 0.5).floor()
        places = torch.minimum(nearest.clamp(min=0), size - 1)[..., None, :]
        parts = weights[..., None]
    width = size[:, :1]
    cell = places[..., 1] * width + places[..., 0] + start
    image = torch.arange(batch, device=cell.device).reshape(-1, 1, 1, 1, 1) * cells.shape[1]
    head = torch.arange(heads, device=cell.device).reshape(1, 1, -1, 1, 1)
    index = (cell.long() + image) * heads + head
    rows = table.index_select(0, index.flatten()).reshape(batch * queries * heads, -1, channels)
    summed = parts.reshape(batch * queries * heads, 1, -1) @ rows
    return summed.reshape(batch, queries, heads * channels)


def _corners(place: Tensor, weights: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The four cells around each point (B, Q, G, P, 4, 2), and their weights (B, Q, G, P, 4)."""
    low = place.floor()
    part = place - low
    shares, cells = [], []
    last = size - 1
    for dy in (0, 1):
        for dx in (0, 1):
            cell = torch.stack([low[..., 0] + dx, low[..., 1] + dy], dim=-1)
            inside = torch.minimum(cell.clamp(min=0), last)
            share = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            shares.append(share * weights * (inside == cell).all(-1))
            cells.append(inside)
    return torch.stack(cells, dim=-2), torch.stack(shares, dim=-1)


def point_constants(maps: Sequence[Tensor], points: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The width and height of each point's level (P, 2), and the index of its first cell in all levels (P, 1)."""
    sizes, starts = [], []
    start = 0
    for level, count in zip(maps, points):
        height, width = level.shape[-2:]
        sizes.append(torch.cat([like.new_full((count, 1), width), like.new_full((count, 1), height)], dim=1))
        starts.append(like.new_full((count, 1), start))
        start = start + height * width
    return torch.cat(sizes), torch.cat(starts)
