"""Pure tensor functions on masks: (..., h, w), in cells of ``stride`` x ``stride`` pixels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["box_window", "mask_dice", "mask_iou", "masks_to_boxes"]


def box_window(boxes: Tensor, size: tuple[int, int], stride: float, margin: float = 0.0) -> Tensor:
    """Whether the center of each cell lies in a box.

    Args:
        boxes: (..., 4) xyxy in pixels.
        size: (h, w) in cells.
        stride: side of a cell in pixels.
        margin: the box is extended by this on each side, in pixels.

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
    """The tight boxes around the cells above a threshold, from operators that every runtime has.

    Values are interpolated linearly between the centers of cells, as where masks are resized to the image: the sides
    lie where the interpolation crosses the threshold.

    Args:
        masks: (..., h, w).
        threshold: cells above this are inside.
        stride: side of a cell in pixels.

    Returns:
        (..., 4) xyxy in pixels; 0 for an empty mask.
    """
    left, right = _extent(masks.amax(-2), threshold)
    top, bottom = _extent(masks.amax(-1), threshold)
    boxes = torch.stack([left, top, right, bottom], dim=-1) * stride
    return torch.where((right > left)[..., None], boxes, 0.0)


def _extent(profile: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The first and last position, in cells, where values (..., n) are above a threshold: (...); n and 0 if nowhere."""
    count = profile.shape[-1]
    inside = profile > threshold
    center = torch.arange(count, device=profile.device, dtype=profile.dtype) + 0.5

    def reach(adjacent: Tensor) -> Tensor:
        """Distance from the center to the crossing of the threshold towards an adjacent cell, 0 to 1."""
        return ((profile - threshold) / (profile - adjacent).clamp(min=1e-6)).clamp(0, 1)

    # Beyond the outermost centers values are constant: a mask above the threshold there extends to the border.
    before = torch.cat([profile[..., :1], profile[..., :-1]], dim=-1)
    after = torch.cat([profile[..., 1:], profile[..., -1:]], dim=-1)
    first = torch.where(inside, center - reach(before), float(count)).amin(-1).clamp(min=0)
    last = torch.where(inside, center + reach(after), 0.0).amax(-1).clamp(max=count)
    return first, last


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Soft IoU of pairs: masks (..., h, w) in [0, 1], broadcast -> (...); 0 where both are empty."""
    intersection = (a * b).sum((-2, -1))
    return intersection / (a.sum((-2, -1)) + b.sum((-2, -1)) - intersection).clamp(min=1e-6)


def mask_dice(a: Tensor, b: Tensor) -> Tensor:
    """Dice coefficient of pairs, with squares in the denominator (V-Net, arXiv 1606.04797): (..., h, w) -> (...)."""
    return 2 * (a * b).sum((-2, -1)) / (a.square().sum((-2, -1)) + b.square().sum((-2, -1))).clamp(min=1e-6)
