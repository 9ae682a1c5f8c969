"""Choosing cells of maps at random, so that a loss or a cost need not look at all of them.

Sources: PointRend (arXiv 1912.08193, section 3.3) for sampling where a prediction is unsure; Mask2Former (arXiv
2112.01527, section 3.3) for losses and matching costs on samples. Those sample points between the cells, as their
annotations are finer than their predictions. Where both have the same cells, a point between them tells nothing new,
and choosing cells needs no interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["object_windows", "random_cells", "unsure_cells"]

# Windows around objects are this much wider and higher than their boxes, to show what lies just outside.
_WIDER = 1.25


def object_windows(boxes: Tensor, valid: Tensor, count: int) -> Tensor:
    """Where to draw samples of each image: half of them from all of it, half from around one of its objects.

    A uniform draw would hardly ever hit a small object: one of 32 x 32 pixels has a 400th of an image of 640 x 640.

    Args:
        boxes: (N, M, 4) cxcywh as fractions of the image.
        valid: bool (N, M); images without any get windows from all of the image and some of no use.
        count: samples an image.

    Returns:
        (N, count, 4) xyxy as fractions; parts outside of the image are cut off.
    """
    number, most = valid.shape
    windows = boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).repeat(number, count, 1)
    around = count // 2
    if not most or not around:
        return windows
    first = valid.long().argsort(dim=1, descending=True, stable=True)  # the valid ones, then the others
    drawn = torch.rand(number, around, device=boxes.device) * valid.sum(1, keepdim=True)
    index = first.gather(1, drawn.long().clamp(max=most - 1))
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    center, half = chosen[..., :2], chosen[..., 2:] * (_WIDER / 2)
    windows[:, :around] = torch.cat([center - half, center + half], dim=-1).clamp(0, 1)
    return windows


def random_cells(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """One random cell in each window.

    Args:
        windows: (..., 4) xyxy as fractions of the map.
        size: (h, w) of the map.

    Returns:
        int64 (...): row * w + column.
    """
    height, width = size
    low, high = windows[..., :2], windows[..., 2:]
    place = (low + torch.rand_like(low) * (high - low)) * low.new_tensor([width, height])
    column = place[..., 0].long().clamp(0, width - 1)
    row = place[..., 1].long().clamp(0, height - 1)
    return row * width + column


def unsure_cells(logits: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Of the candidates those whose logit is nearest to 0.

    Args:
        logits: (N, cells).
        candidates: int64 (N, C): cells.
        count: at most C.

    Returns:
        int64 (N, count).
    """
    best = (-logits.gather(1, candidates).abs()).topk(count, dim=1).indices
    return candidates.gather(1, best)
