"""Random sampling of mask cells, so that losses and matching costs need not be computed on all of them.

Sources: PointRend (arXiv 1912.08193, section 3.3) for sampling where a prediction is uncertain; Mask2Former (arXiv
2112.01527, section 3.3) for losses and matching costs on samples. Both sample points between cells, since their targets
have a higher resolution than their predictions. Here both have the same resolution: points between cells would add
nothing, and cells need no interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["object_windows", "random_cells", "unsure_cells"]

# Windows around objects are larger than their boxes by this factor, to include background.
_WINDOW_SCALE = 1.25


def object_windows(boxes: Tensor, valid: Tensor, count: int) -> Tensor:
    """The window of each sample: half are windows around random objects of the image, half are the whole image.

    Uniform sampling rarely hits small objects: 32 x 32 pixels are 1/400 of an image of 640 x 640.

    Args:
        boxes: (N, M, 4) cxcywh as fractions of the image.
        valid: bool (N, M). In images without valid boxes the object windows are arbitrary.
        count: samples per image.

    Returns:
        (N, count, 4) xyxy as fractions, clipped to the image.
    """
    batch, max_objects = valid.shape
    windows = boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).repeat(batch, count, 1)
    around = count // 2
    if not max_objects or not around:
        return windows
    order = valid.long().argsort(dim=1, descending=True, stable=True)  # the valid ones, then the others
    drawn = torch.rand(batch, around, device=boxes.device) * valid.sum(1, keepdim=True)
    index = order.gather(1, drawn.long().clamp(max=max_objects - 1))
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    center, half = chosen[..., :2], chosen[..., 2:] * (_WINDOW_SCALE / 2)
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
    """The ``count`` candidates whose logits are closest to 0.

    Args:
        logits: (N, cells).
        candidates: int64 (N, C), indices of cells.
        count: at most C.

    Returns:
        int64 (N, count).
    """
    best = (-logits.gather(1, candidates).abs()).topk(count, dim=1).indices
    return candidates.gather(1, best)
