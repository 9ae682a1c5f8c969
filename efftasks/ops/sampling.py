"""Multi-scale deformable sampling: weighted sums of feature maps at a few points, whose locations are tensors.

Sources: Deformable DETR (arXiv 2010.04159, section 4.1) for the operation; RT-DETRv2 (arXiv 2407.17140, section 3) for
its discrete form, which takes the nearest cell and needs no interpolation.

There are three implementations: ``grid_sample`` of PyTorch; ``gather``, with the same result from indexing and a matrix
product, for runtimes where GridSample is missing or wrong, and for exported files; and ``discrete``, an approximation.
No tensor has more than five dimensions, and queries are last: see ``docs/design.md``.

Legend: B images, Q queries, G heads, P points of all levels together, D channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SAMPLINGS", "point_constants", "sample_maps", "without_grid_sample"]

SAMPLINGS = ("grid_sample", "gather", "discrete")


def without_grid_sample(sampling: str) -> str:
    """The way of ``SAMPLINGS`` that gives the same without GridSample, for exported files."""
    return "gather" if sampling == "grid_sample" else sampling


def sample_maps(
    maps: Sequence[Tensor],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int],
    sampling: str = "grid_sample",
    projection: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Weighted sums of feature maps at points. Outside of a map values are 0 (``discrete``: those of the border).

    Args:
        maps: one (B, G * D, H_i, W_i) per level.
        locations: (B, G, P, 2, Q) xy, from -1 to 1 over the width and height of a map, as in ``grid_sample``; cell
            centers are at ``(2 * i + 1) / W - 1``.
        weights: (B, G, P, Q).
        points: number of points on each level; their sum is P.
        sampling: one of ``SAMPLINGS``.
        projection: weight (G * D, C) and bias (G * D,) of a linear layer that the maps, then of C channels, pass
            first; None for none.

    Returns:
        (B, Q, G * D).
    """
    if sampling == "grid_sample":
        if projection is not None:
            weight, bias = projection
            maps = [F.conv2d(level, weight[:, :, None, None], bias) for level in maps]
        return _by_grid_sample(maps, locations, weights, points)
    return _by_gather(maps, locations, weights, points, sampling == "gather", projection)


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
    maps: Sequence[Tensor],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int],
    bilinear: bool,
    projection: tuple[Tensor, Tensor] | None,
) -> Tensor:
    heads, queries = locations.shape[1], locations.shape[-1]
    size = point_constants(maps, points, locations)[0][..., None]
    inside = (locations + 1) * (0.5 * size)  # in cells, from the map's corner
    if bilinear:
        places, shares = _corners(inside - 0.5, weights, size)
        maps = [_with_neighbors(level) for level in maps]
    else:
        places, shares = torch.minimum((inside + 0.5).floor().clamp(min=0), size - 1), weights[:, :, :, None]
    cells = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)
    if projection is not None:
        cells = F.linear(cells, *projection)
    # A row of D numbers for each cell and head: a single lookup for all points and corners.
    table = cells.reshape(-1, cells.shape[2] // heads)
    index = _rows(places.to(torch.int32), maps, points, cells.shape[1], bilinear)
    count = index.shape[2] * index.shape[3]
    rows = table.index_select(0, index.permute(0, 1, 4, 2, 3).reshape(-1)).reshape(-1, count, table.shape[1])
    summed = shares.permute(0, 1, 4, 2, 3).reshape(-1, 1, count) @ rows  # (B * G * Q, 1, D)
    return summed.reshape(-1, heads, queries, table.shape[1]).transpose(1, 2).flatten(2)


def _corners(place: Tensor, weights: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The upper left of four cells of a map for each point, and the weights of all four.

    A cell's weight falls to 0 at a distance of one cell, which makes those outside of the map 0 without a condition.

    Args:
        place: (B, G, P, 2, Q) in cells, whose centers are integers.
        weights: (B, G, P, Q).
        size: (P, 2, 1), width and height of each point's map.

    Returns:
        (B, G, P, 2, Q) column and row, and (B, G, P, 4, Q): upper left, upper right, lower left, lower right.
    """
    low = torch.minimum(place.floor(), size - 2).clamp(min=0)
    away = place - low
    near, far = F.relu(1 - away.abs()), F.relu(1 - (away - 1).abs())
    upper, lower = weights * near[:, :, :, 1], weights * far[:, :, :, 1]
    left, right = near[:, :, :, 0], far[:, :, :, 0]
    return low, torch.stack([upper * left, upper * right, lower * left, lower * right], dim=3)


def _with_neighbors(level: Tensor) -> Tensor:
    """A map (B, C, H, W), with zeros to the right and below where a cell has no neighbor there at all."""
    height, width = level.shape[-2:]
    return F.pad(level, (0, 1 if width < 2 else 0, 0, 1 if height < 2 else 0)) if min(height, width) < 2 else level


def _rows(cell: Tensor, maps: Sequence[Tensor], points: Sequence[int], count: int, bilinear: bool) -> Tensor:
    """Rows of the table, int32 (B, G, P, 4, Q) with ``bilinear``, else (B, G, P, 1, Q).

    Args:
        cell: int32 (B, G, P, 2, Q), column and row in the point's map.
        maps: one (B, C, H_i, W_i) per level.
        points: number of points on each level.
        count: cells of all levels.
        bilinear: whether the neighbors to the right, below, and to the right of that are looked up, too.
    """
    batch, heads = cell.shape[:2]
    size, start = point_constants(maps, points, cell)
    image = torch.arange(batch, dtype=torch.int32, device=cell.device).reshape(-1, 1, 1, 1) * (count * heads)
    head = torch.arange(heads, dtype=torch.int32, device=cell.device).reshape(-1, 1, 1)
    below = size[:, :1] * heads
    first = cell[:, :, :, 1] * below + cell[:, :, :, 0] * heads + (start * heads + head) + image
    if not bilinear:
        return first[:, :, :, None]
    return torch.stack([first, first + heads, first + below, first + (below + heads)], dim=3)


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
