"""Box sides as distributions over bins of non-uniform width (D-FINE), and their decoding.

Source: D-FINE (arXiv 2410.13842, section 4.1 and the authors' public description of W(n)). The bins are
offsets from the sides of an initial box, in units of its size; they are narrow around zero.

Legend: N boxes in any shape, R + 1 bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["BinTargets", "bin_targets", "bin_values", "distances_to_boxes"]


class BinTargets(NamedTuple):
    """A value as a mixture of two adjacent bins."""

    left: Tensor  # int64: index of the left bin, 0 to R - 1
    weight_left: Tensor  # in [0, 1]
    weight_right: Tensor  # in [0, 1]; the two sum to 1


def bin_values(reg_max: int = 32, up: float = 0.5, reg_scale: float = 4.0) -> Tensor:
    """The values W(0) to W(R) of the bins: ascending, odd about the middle, with geometrically growing steps.

    Args:
        reg_max: R, even.
        up: the last two values are ``up * reg_scale`` and twice that.
        reg_scale: size of a box in the units of :func:`distances_to_boxes`.

    Returns:
        float32 (R + 1,).
    """
    bound = abs(up) * abs(reg_scale)
    step = (bound + 1) ** (2 / (reg_max - 2))
    right = [step**i - 1 for i in range(1, reg_max // 2)]
    return torch.tensor([-2 * bound, *(-value for value in reversed(right)), 0.0, *right, 2 * bound])


def distances_to_boxes(initial: Tensor, distances: Tensor, reg_scale: float) -> Tensor:
    """Boxes (..., 4) cxcywh: the initial boxes with their sides moved outwards by ``distances``.

    Args:
        initial: (..., 4) cxcywh, in any unit.
        distances: (..., 4) left, top, right, bottom, in units of ``size / reg_scale`` of the initial box.
        reg_scale: as in :func:`bin_values`.
    """
    center, unit = initial[..., :2], initial[..., 2:] / reg_scale
    half = 0.5 * reg_scale
    low = center - (half + distances[..., :2]) * unit
    high = center + (half + distances[..., 2:]) * unit
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def bin_targets(initial: Tensor, boxes: Tensor, values: Tensor, reg_scale: float) -> BinTargets:
    """Encode target boxes relative to initial boxes: the inverse of the decoding.

    Distances beyond the last bins are clamped to them.

    Args:
        initial: (N, 4) cxcywh.
        boxes: (N, 4) xyxy targets, in the same unit.
        values: (R + 1,) of :func:`bin_values`.
        reg_scale: as in :func:`bin_values`.

    Returns:
        Targets of shape (N, 4): left, top, right, bottom.
    """
    unit = initial[:, 2:] / reg_scale + 1e-16
    half = 0.5 * reg_scale
    low = (initial[:, :2] - boxes[:, :2]) / unit - half
    high = (boxes[:, 2:] - initial[:, :2]) / unit - half
    distances = torch.cat([low, high], dim=-1)
    left = (torch.searchsorted(values, distances.contiguous(), right=True) - 1).clamp(0, len(values) - 2)
    below, above = values[left], values[left + 1]
    weight_right = ((distances - below) / (above - below)).clamp(0, 1)
    return BinTargets(left, 1 - weight_right, weight_right)
