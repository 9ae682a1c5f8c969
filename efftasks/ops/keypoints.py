"""Pure tensor functions on keypoints: (..., P, 2) or (..., P, 3) as x, y and visibility or score, in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["object_keypoint_similarity", "squared_errors"]

_MIN_AREA = 1e-6


def squared_errors(points: Tensor, targets: Tensor, sigmas: Tensor, areas: Tensor) -> Tensor:
    """The exponents of OKS: squared distance over ``2 * area * (2 * sigma)**2``.

    Args:
        points: (..., P, 2) predicted x, y.
        targets: (..., P, 2 or 3) annotated x, y.
        sigmas: (P,), as in COCO; doubled here, as in its evaluation.
        areas: (...) of the objects, in square pixels.

    Returns:
        (..., P), 0 for a perfect match.

    Source: COCO's keypoint evaluation (pycocotools ``computeOks``).
    """
    distance = (points[..., :2] - targets[..., :2]).square().sum(-1)
    return distance / (2 * areas[..., None].clamp(min=_MIN_AREA) * (2 * sigmas).square())


def object_keypoint_similarity(points: Tensor, targets: Tensor, sigmas: Tensor, areas: Tensor) -> Tensor:
    """OKS of pairs, over annotated keypoints (visibility above 0).

    Args:
        points: (..., P, 2) predicted x, y.
        targets: (..., P, 3) annotated x, y, visibility.
        sigmas: (P,).
        areas: (...), in square pixels.

    Returns:
        (...) in [0, 1]; 0 where no keypoint is annotated.
    """
    annotated = (targets[..., 2] > 0).to(points.dtype)
    similarity = torch.exp(-squared_errors(points, targets, sigmas, areas))
    return (similarity * annotated).sum(-1) / annotated.sum(-1).clamp(min=1)
