"""Pure tensor functions on masks: (..., h, w) with one cell for ``stride`` x ``stride`` pixels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["box_window", "mask_dice", "mask_iou", "masks_to_boxes"]


def box_window(boxes: Tensor, size: tuple[int, int], stride: float, margin: float = 0.0) -> Tensor:
    """Which cells have their centre in a box.

    Args:
        boxes: (..., 4) xyxy in pixels.
        size: (h, w) in cells.
        stride: pixels of a cell's side.
        margin: the box is widened by this on each side, in pixels.

    Returns:
        bool (..., h, w).
    """
    height, width = size
    y = (torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5) * stride
    x = (torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5) * stride
    left, top, right, bottom = boxes[..., None].unbind(-2)
    across = (x > left - margin) & (x < right + margin)
    down = (y > top - margin) & (y < bottom + margin)
    return down[..., :, None] & across[..., None, :]


def masks_to_boxes(masks: Tensor, threshold: float, stride: float) -> Tensor:
    """The boxes around what is above a threshold; made of operators that every runtime has.

    Between the centres of two cells values change evenly, as where masks are brought to the size of an image: sides lie
    where the threshold is crossed, and no part of such a mask is outside.

    Args:
        masks: (..., h, w).
        threshold: what is inside is above this.
        stride: pixels of a cell's side.

    Returns:
        (..., 4) xyxy in pixels; 0 for an empty mask.
    """
    left, right = _extent(masks.amax(-2), threshold)
    top, bottom = _extent(masks.amax(-1), threshold)
    boxes = torch.stack([left, top, right, bottom], dim=-1) * stride
    return torch.where((right > left)[..., None], boxes, 0.0)


def _extent(profile: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Where values (..., n) of cells are first and last above a threshold, in cells: (...), n and 0 for nowhere."""
    count = profile.shape[-1]
    inside = profile > threshold
    center = torch.arange(count, device=profile.device, dtype=profile.dtype) + 0.5

    def reach(beside: Tensor) -> Tensor:
        """How far the inside goes on towards the next cell, 0 to 1."""
        return ((profile - threshold) / (profile - beside).clamp(min=1e-6)).clamp(0, 1)

    # Beyond the outermost centres values stay: what is inside there goes on to the border.
    before = torch.cat([profile[..., :1], profile[..., :-1]], dim=-1)
    after = torch.cat([profile[..., 1:], profile[..., -1:]], dim=-1)
    first = torch.where(inside, center - reach(before), float(count)).amin(-1).clamp(min=0)
    last = torch.where(inside, center + reach(after), 0.0).amax(-1).clamp(max=count)
    return first, last


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Soft IoU of pairs: masks (..., h, w) in [0, 1], broadcast -> (...); 0 where both are empty."""
    both = (a * b).sum((-2, -1))
    return both / (a.sum((-2, -1)) + b.sum((-2, -1)) - both).clamp(min=1e-6)


def mask_dice(a: Tensor, b: Tensor) -> Tensor:
    """Dice coefficient of pairs, with squares in the denominator (V-Net, arXiv 1606.04797): (..., h, w) -> (...)."""
    return 2 * (a * b).sum((-2, -1)) / (a.square().sum((-2, -1)) + b.square().sum((-2, -1))).clamp(min=1e-6)
