"""Masks of objects in pixels of their image: one rule for PyTorch and for a device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efftasks.structures.instances import MASK_STRIDE

__all__ = ["box_windows", "masks_on_image"]

_BAND = 1 << 16  # pixels at a time: their numbers stay in a core's cache


class _Samples(NamedTuple):
    """Where the pixels along one side of an image lie among the cells."""

    cell: np.ndarray  # int64 (pixels,): the last cell whose centre is not beyond the pixel's
    fraction: np.ndarray  # float32 (pixels, 1): how far the pixel is on the way to the next cell's centre


def masks_on_image(
    masks: np.ndarray,
    boxes: np.ndarray,
    scale: tuple[float, float],
    image_size: tuple[int, int],
    threshold: float = 0.0,
) -> np.ndarray:
    """Which pixels of an image belong to each object.

    A cell's logit is that of its centre; between the centres it is interpolated bilinearly, and beyond the outermost
    ones it stays. The pixels inside are those whose centre is above the threshold and that the object's box
    touches.

    Args:
        masks: float32 (K, h, w), logits of cells of ``MASK_STRIDE`` pixels of the network input.
        boxes: float32 (K, 4) xyxy in pixels of the image.
        scale: (x, y) from the image to the network input, in whose upper left corner it lies.
        image_size: (H, W) of the image in pixels.
        threshold: a pixel is inside above this; 0 is a probability of a half.

    Returns:
        bool (K, H, W).
    """
    height, width = image_size
    found = np.zeros((len(masks), height, width), bool)
    columns = _samples(width, scale[0], masks.shape[2])
    rows = _samples(height, scale[1], masks.shape[1])
    for mask, inside, (left, top, right, bottom) in zip(masks, found, box_windows(boxes, image_size).tolist()):
        if left >= right or top >= bottom:
            continue
        across = _Samples(columns.cell[left:right], columns.fraction[left:right])
        down = _Samples(rows.cell[top:bottom], rows.fraction[top:bottom])
        cells = mask[down.cell[0] : down.cell[-1] + 2, across.cell[0] : across.cell[-1] + 2]
        if cells.max() <= threshold:  # what lies between cells is not above all of them
            continue
        wide = np.ascontiguousarray(_stretch(np.ascontiguousarray(cells.T), across).T)
        _cut(wide, down, threshold, inside[top:bottom, left:right])
    return found


def box_windows(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The whole pixels that boxes (K, 4) xyxy touch in an image (H, W): int64 (K, 4), right and bottom exclusive."""
    limit = np.array([image_size[1], image_size[0]] * 2)
    outwards = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    return np.clip(outwards, 0, limit).astype(np.int64)


def _samples(pixels: int, scale: float, cells: int) -> _Samples:
    positions = (np.arange(pixels) + 0.5) * (scale / MASK_STRIDE) - 0.5
    positions = np.clip(positions, 0, cells - 1)
    low = positions.astype(np.int64)
    return _Samples(low, (positions - low).astype(np.float32)[:, None])


def _stretch(cells: np.ndarray, where: _Samples) -> np.ndarray:
    """Cells (n, m) at the pixels along the first side, (pixels, m); the first row is that of the first pixel's cell."""
    index = where.cell - where.cell[0]
    steps = np.diff(cells, axis=0, append=cells[-1:])  # beyond the last cell nothing changes
    stretched = steps.take(index, axis=0)
    stretched *= where.fraction
    stretched += cells.take(index, axis=0)
    return stretched


def _cut(cells: np.ndarray, where: _Samples, threshold: float, inside: np.ndarray) -> None:
    """Write into ``inside`` where the stretched cells are above the threshold, band by band."""
    band = max(1, _BAND // cells.shape[1])
    for start in range(0, len(inside), band):
        part = _Samples(where.cell[start : start + band], where.fraction[start : start + band])
        first = part.cell[0] - where.cell[0]
        last = part.cell[-1] - where.cell[0]
        np.greater(_stretch(cells[first : last + 2], part), threshold, out=inside[start : start + band])
