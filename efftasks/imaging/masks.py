"""Masks of objects in pixels of the image: one rule for PyTorch and for the runtimes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efftasks.structures.instances import MASK_STRIDE

__all__ = ["box_windows", "masks_on_image"]

_BAND = 1 << 16  # pixels at a time, so that they fit in a core's cache


class _Samples(NamedTuple):
    """Positions of the pixels along one side of an image, in cells of a mask."""

    cell: np.ndarray  # int64 (pixels,): the last cell whose center is not beyond the pixel's
    fraction: np.ndarray  # float32 (pixels, 1): weight of the next cell in the interpolation


def masks_on_image(
    masks: np.ndarray,
    boxes: np.ndarray,
    scale: tuple[float, float],
    image_size: tuple[int, int],
    threshold: float = 0.0,
) -> np.ndarray:
    """Upsample and threshold the masks of objects, and clip them to their boxes.

    Logits are interpolated bilinearly between the centers of cells, and constant beyond the outermost centers. A pixel
    is in the mask if the logit at its center is above the threshold and the object's box touches it.

    Args:
        masks: float32 (K, h, w), logits of cells of ``MASK_STRIDE`` pixels of the network input.
        boxes: float32 (K, 4) xyxy in pixels of the image.
        scale: (x, y) factors from the image to the network input; the image lies in its upper left corner.
        image_size: (H, W) of the image in pixels.
        threshold: of the logits; 0 is a probability of 0.5.

    Returns:
        bool (K, H, W).
    """
    height, width = image_size
    image_masks = np.zeros((len(masks), height, width), bool)
    columns = _samples(width, scale[0], masks.shape[2])
    rows = _samples(height, scale[1], masks.shape[1])
    for mask, inside, (left, top, right, bottom) in zip(masks, image_masks, box_windows(boxes, image_size).tolist()):
        if left >= right or top >= bottom:
            continue
        across = _Samples(columns.cell[left:right], columns.fraction[left:right])
        down = _Samples(rows.cell[top:bottom], rows.fraction[top:bottom])
        cells = mask[down.cell[0] : down.cell[-1] + 2, across.cell[0] : across.cell[-1] + 2]
        if cells.max() <= threshold:  # an interpolated value is not above all cells around it
            continue
        wide = np.ascontiguousarray(_interpolate(np.ascontiguousarray(cells.T), across).T)
        _threshold_into(wide, down, threshold, inside[top:bottom, left:right])
    return image_masks


def box_windows(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes (K, 4) xyxy rounded outwards and clipped to an image (H, W): int64 (K, 4), right and bottom exclusive."""
    limit = np.array([image_size[1], image_size[0]] * 2)
    rounded = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    return np.clip(rounded, 0, limit).astype(np.int64)


def _samples(pixels: int, scale: float, cells: int) -> _Samples:
    positions = (np.arange(pixels) + 0.5) * (scale / MASK_STRIDE) - 0.5
    positions = np.clip(positions, 0, cells - 1)
    low = positions.astype(np.int64)
    return _Samples(low, (positions - low).astype(np.float32)[:, None])


def _interpolate(cells: np.ndarray, samples: _Samples) -> np.ndarray:
    """Interpolate cells (n, m) along the first side, to (pixels, m); row 0 is the cell of the first pixel."""
    index = samples.cell - samples.cell[0]
    steps = np.diff(cells, axis=0, append=cells[-1:])  # beyond the last cell nothing changes
    values = steps.take(index, axis=0)
    values *= samples.fraction
    values += cells.take(index, axis=0)
    return values


def _threshold_into(cells: np.ndarray, samples: _Samples, threshold: float, inside: np.ndarray) -> None:
    """Write into ``inside`` where the interpolated cells are above the threshold, band by band."""
    band = max(1, _BAND // cells.shape[1])
    for start in range(0, len(inside), band):
        part = _Samples(samples.cell[start : start + band], samples.fraction[start : start + band])
        first = part.cell[0] - samples.cell[0]
        last = part.cell[-1] - samples.cell[0]
        np.greater(_interpolate(cells[first : last + 2], part), threshold, out=inside[start : start + band])
