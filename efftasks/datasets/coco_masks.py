"""Decode masks of COCO annotations (polygons, RLE compressed or not), each as a crop of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import check_rle_size, rle_runs, segmentation_of

__all__ = ["DecodedMask", "decode_mask"]

_SUBPIXELS = 5  # COCO's tools fill polygons after rounding them to fifths of a pixel


class DecodedMask(NamedTuple):
    """A mask as a crop of its image, and the place of the crop's upper left corner."""

    left: int
    top: int
    crop: np.ndarray  # uint8 (h, w) of 0 and 1; (0, 0) where there is no mask


_EMPTY = DecodedMask(0, 0, np.zeros((0, 0), np.uint8))


def decode_mask(segmentation: Any, size: tuple[int, int]) -> DecodedMask:
    """Decode a mask, pixel by pixel as pycocotools does.

    Args:
        segmentation: a list of polygons, of which the union is taken; an RLE with counts as str or list; or None. See
            :func:`efftasks.annotations.coco.segmentation_of`.
        size: (height, width) of the image.

    Raises:
        ValueError: the mask is broken; the message does not name the annotation.
    """
    mask = segmentation_of({"segmentation": segmentation})
    if mask is None:
        return _EMPTY
    if isinstance(mask, dict):
        return _decode_runs(mask, size)
    # Filling does not change under a shift by whole pixels, so only the part of the image around the mask is filled.
    low, high = _bounds(mask)
    left, top = (int(v) for v in np.clip(np.floor(low), 0, size[::-1]))
    right, bottom = (int(v) for v in np.clip(np.ceil(high) + 1, 0, size[::-1]))
    if right <= left or bottom <= top:
        return _EMPTY
    polygons = [_shifted(polygon, left, top) for polygon in mask]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, bottom - top, right - left))
    return DecodedMask(left, top, np.ascontiguousarray(coco_mask.decode(rle)))


def _bounds(mask: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in mask])
    return points.min(0), points.max(0)


def _shifted(polygon: Sequence[float], left: int, top: int) -> list[float]:
    """A polygon moved by (-left, -top); rounded first, since the shift could round halves the other way."""
    fixed = np.trunc(np.asarray(polygon, np.float64).reshape(-1, 2) * _SUBPIXELS + 0.5)
    return ((fixed - (_SUBPIXELS * left, _SUBPIXELS * top)) / _SUBPIXELS).reshape(-1).tolist()


def _decode_runs(segmentation: dict[str, Any], size: tuple[int, int]) -> DecodedMask:
    """Decode an RLE, which runs down the columns, and crop it to its pixels."""
    check_rle_size(segmentation, size)
    counts = rle_runs(segmentation)
    values = np.zeros(len(counts), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, counts).reshape(size[1], size[0])
    top, left, height, width = cv2.boundingRect(columns)
    return DecodedMask(left, top, columns[left : left + width, top : top + height].T.copy())
