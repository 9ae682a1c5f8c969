"""Top-k over the (point, class) pairs of a dense prediction, without NMS."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["top_pairs"]


def top_pairs(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best (point, class) pairs of each image, best first.

    Top-k is on logits, since saturated sigmoids tie. It first selects the best points by their best class, then the
    best pairs of those: the same pairs as top-k over all pairs, at a fraction of the cost. A point can be selected with
    several classes.

    Args:
        logits: (B, A, C).
        count: K; at most A * C.

    Returns:
        logits (B, K), labels int64 (B, K), points int64 (B, K) indices into A.
    """
    num_classes = logits.shape[-1]
    if count >= logits.shape[1]:  # every point may be among the best pairs
        best, pair = logits.flatten(1).topk(count, dim=1)
        point = torch.div(pair, num_classes, rounding_mode="floor")
        return best, pair - point * num_classes, point
    points = logits.amax(dim=-1).topk(count, dim=1).indices
    candidates = logits.gather(1, points[..., None].expand(-1, -1, num_classes))
    best, pair = candidates.flatten(1).topk(count, dim=1)
    # pair = position * num_classes + label
    position = torch.div(pair, num_classes, rounding_mode="floor")
    return best, pair - position * num_classes, points.gather(1, position)
