"""Masks of COCO annotations: polygons, run lengths compressed or not, each decoded where it lies and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import check_rle_size, rle_runs, segmentation_of

__all__ = ["DecodedMask", "decode_mask"]

_FINE = 5  # COCO's tools fill polygons after rounding them to fifths of a pixel


class DecodedMask(NamedTuple):
    """Part of an image that holds a whole mask."""

    left: int
    top: int
    crop: np.ndarray  # uint8 (h, w) of 0 and 1; (0, 0) where there is no mask


_EMPTY = DecodedMask(0, 0, np.zeros((0, 0), np.uint8))


def decode_mask(segmentation: Any, size: tuple[int, int]) -> DecodedMask:
    """A mask as COCO's tools would fill it.

    Args:
        segmentation: list of polygons, whose parts are united; or run lengths, as text or as a list; or nothing. See
            :func:`efftasks.annotations.coco.segmentation_of`.
        size: (height, width) of the image.

    Raises:
        ValueError: what is wrong with it, to be completed by whose it is.
    """
    parts = segmentation_of({"segmentation": segmentation})
    if parts is None:
        return _EMPTY
    if isinstance(parts, dict):
        return _decode_runs(parts, size)
    # Filling is the same wherever whole pixels are moved to, so only the part of the image around them is filled.
    low, high = _bounds(parts)
    left, top = (int(v) for v in np.clip(np.floor(low), 0, size[::-1]))
    right, bottom = (int(v) for v in np.clip(np.ceil(high) + 1, 0, size[::-1]))
    if right <= left or bottom <= top:
        return _EMPTY
    moved = [_shifted(part, left, top) for part in parts]
    runs = coco_mask.merge(coco_mask.frPyObjects(moved, bottom - top, right - left))
    return DecodedMask(left, top, np.ascontiguousarray(coco_mask.decode(runs)))


def _bounds(parts: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([np.asarray(part, np.float64).reshape(-1, 2) for part in parts])
    return points.min(0), points.max(0)


def _shifted(part: Sequence[float], left: int, top: int) -> list[float]:
    """Rounded before it is moved: a move first would turn some of the halves the other way."""
    fine = np.trunc(np.asarray(part, np.float64).reshape(-1, 2) * _FINE + 0.5)
    return ((fine - (_FINE * left, _FINE * top)) / _FINE).reshape(-1).tolist()


def _decode_runs(segmentation: dict[str, Any], size: tuple[int, int]) -> DecodedMask:
    """Drawn as columns, which is how runs go, and cut to what they hold."""
    check_rle_size(segmentation, size)
    counts = rle_runs(segmentation)
    values = np.zeros(len(counts), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, counts).reshape(size[1], size[0])
    top, left, height, width = cv2.boundingRect(columns)
    return DecodedMask(left, top, columns[left : left + width, top : top + height].T.copy())
