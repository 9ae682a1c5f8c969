"""Pure tensor functions on boxes: float (..., 4), xyxy in pixels unless stated otherwise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "box_area",
    "box_ciou",
    "box_giou",
    "box_iou",
    "cxcywh_to_xyxy",
    "decode_distances",
    "encode_distances",
    "points_inside",
    "xyxy_to_cxcywh",
]

_EPS = 1e-7
# Smaller than any area of a box, in pixels or as a fraction of the image: avoids 0 / 0.
_MIN_AREA = 1e-12


def box_area(boxes: Tensor) -> Tensor:
    """Areas of boxes (..., 4) xyxy as (...); a box with x2 < x1 or y2 < y1 has area 0."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes, elementwise with broadcasting.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, broadcastable to ``a``; pass ``a[:, None]`` and ``b[None]`` for all pairs.

    Returns:
        (...) in [0, 1]; 0 where both boxes are empty.
    """
    intersection, union = _overlap(a, b)
    return intersection / union


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union; the union is above 0."""
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    overlap = overlap.clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    return intersection, (box_area(a) + box_area(b) - intersection).clamp(min=_MIN_AREA)


def box_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, elementwise with broadcasting; in (-1, 1], 1 for equal boxes.

    Source: Rezatofighi et al., arXiv 1902.09630, algorithm 1.
    """
    intersection, union = _overlap(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    area = (hull[..., 0] * hull[..., 1]).clamp(min=_MIN_AREA)
    return intersection / union - (area - union) / area


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as center and size -> as left, top, right, bottom, in the same unit."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as left, top, right, bottom -> as center and size, in the same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, elementwise with broadcasting; in (-1.5, 1], 1 for equal boxes.

    As in the paper, no gradient flows through the trade-off weight.

    Source: Zheng et al., Distance-IoU loss (arXiv 1911.08287), section 3.3, equations 8 to 11.
    """
    iou = box_iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(-1) + _EPS
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    size_a = (a[..., 2:] - a[..., :2]).clamp(min=_EPS)
    size_b = (b[..., 2:] - b[..., :2]).clamp(min=_EPS)
    angle = torch.atan(size_a[..., 0] / size_a[..., 1]) - torch.atan(size_b[..., 0] / size_b[..., 1])
    aspect = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        trade_off = aspect / (1 - iou + aspect + _EPS)
    return iou - offset.square().sum(-1) / diagonal - trade_off * aspect


def decode_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy from points (..., 2) xy and distances (..., 4) to the left, top, right and bottom side.

    All in one unit; the inverse of :func:`encode_distances`.
    """
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) from points (..., 2) to the left, top, right and bottom side of boxes (..., 4) xyxy.

    Negative where the point lies outside. The inverse of :func:`decode_distances`.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def points_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points lie strictly inside boxes, for all pairs.

    Args:
        points: (P, 2) xy.
        boxes: (..., 4) xyxy.

    Returns:
        bool (..., P).
    """
    x, y = points[:, 0], points[:, 1]
    left, top, right, bottom = boxes[..., None].unbind(-2)
    return (x > left) & (x < right) & (y > top) & (y < bottom)
