"""Zooming out and cropping as single-stage detectors have done since SSD (arXiv 1512.02325, section 2.2).

The order of random numbers and the rules are those of mmdet's ``Expand`` and ``MinIoURandomCrop`` (Apache-2.0), but for
crowd regions: they do not hold up a crop, and what a crop has of them stays to be ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.semantic_values import IGNORE
from efftasks.datasets.transforms.warp import Objects, cut_objects, put_objects, take_objects
from efftasks.registry import TRANSFORMS

__all__ = ["RandomIoUCrop", "RandomZoomOut"]

_TRIALS = 50  # windows that are drawn for one condition
_ASPECTS = (0.5, 2.0)  # height over width of a window


@TRANSFORMS.register_module()
class RandomZoomOut(BaseTransform):
    """Put the image somewhere on a larger canvas, with all that is annotated in it.

    Args:
        ratio: the canvas is larger by a factor drawn evenly from this range.
        prob: of a larger canvas.
        fill: pixel value of what the image does not cover, 0..255; 255 in the label map, whatever this is.
    """

    def __init__(self, ratio: tuple[float, float] = (1.0, 4.0), prob: float = 0.5, fill: int = 0) -> None:
        if not 1 <= ratio[0] <= ratio[1]:
            raise ValueError(f"ratio: got {ratio}, allowed 1 <= least <= most")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: got {prob}, allowed 0 to 1")
        self.ratio = ratio
        self.prob = prob
        self.fill = fill

    def transform(self, results: dict) -> dict:
        """Draw a canvas; sets ``img_shape``."""
        if np.random.uniform(0, 1) > self.prob:
            return results
        height, width = results["img"].shape[:2]
        factor = np.random.uniform(*self.ratio)
        left = int(np.random.uniform(0, width * factor - width))
        top = int(np.random.uniform(0, height * factor - height))
        size = (int(height * factor), int(width * factor))
        edges = (top, size[0] - height - top, left, size[1] - width - left)
        for key, value in (("img", self.fill), ("gt_seg_map", IGNORE)):
            if key in results:
                results[key] = cv2.copyMakeBorder(results[key], *edges, cv2.BORDER_CONSTANT, value=(value,) * 3)
        results["img_shape"] = size
        put_objects(results, take_objects(results).shift(left, top), size)
        return results


@TRANSFORMS.register_module()
class RandomIoUCrop(BaseTransform):
    """Crop to a window that overlaps with every object by at least a drawn IoU; those whose center it has stay.

    Args:
        prob: of a crop.
        min_ious: the least IoU is drawn from these, 0, and "no crop".
        min_size: a window's sides are at least this part of the image's.
    """

    def __init__(
        self,
        prob: float = 0.8,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_size: float = 0.3,
    ) -> None:
        for field, value in (("prob", prob), ("min_size", min_size), *(("min_ious", value) for value in min_ious)):
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, allowed 0 to 1")
        self.prob = prob
        self.choices = (1, *min_ious, 0)
        self.min_size = min_size

    def transform(self, results: dict) -> dict:
        """Draw a window and cut it out; sets ``img_shape``."""
        if np.random.rand() > self.prob:
            return results
        objects = take_objects(results)
        window = self._draw(results["img"].shape[:2], objects.boxes[~objects.ignored])
        return results if window is None else _cropped(results, objects, window)

    def _draw(self, shape: tuple[int, int], boxes: np.ndarray) -> np.ndarray | None:
        """A window, int (4,) xyxy, that suits boxes (N, 4); None for no crop."""
        height, width = shape
        while True:
            least = np.random.choice(self.choices)
            if least == 1:
                return None
            for _ in range(_TRIALS):
                w = np.random.uniform(self.min_size * width, width)
                h = np.random.uniform(self.min_size * height, height)
                if not _ASPECTS[0] <= h / w <= _ASPECTS[1]:
                    continue
                left, top = np.random.uniform(0, width - w), np.random.uniform(0, height - h)
                window = np.array([left, top, left + w, top + h]).astype(np.int64)
                if (window[2:] == window[:2]).any():
                    continue
                if not len(boxes) or (_ious(boxes, window).min() >= least and _has_centers(boxes, window).any()):
                    return window


def _cropped(results: dict[str, Any], objects: Objects, window: np.ndarray) -> dict[str, Any]:
    left, top, right, bottom = window.tolist()
    size = (bottom - top, right - left)
    for key in ("img", "gt_seg_map"):
        if key in results:
            results[key] = results[key][top:bottom, left:right]
    results["img_shape"] = size
    kept = objects.select(_has_centers(objects.boxes, window) | objects.ignored)
    matrix = np.array([[1.0, 0, -left], [0, 1, -top]])
    put_objects(results, cut_objects(kept, matrix, size, min_visible=0.0), size)
    return results


def _has_centers(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Whether the centers of boxes (N, 4) lie in a window (4,): bool (N,)."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > window[:2]) & (centers < window[2:])).all(1)


def _ious(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 4) with a window (4,): float (N,)."""
    sides = np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2])
    shared = sides.clip(0).prod(1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (window[2:] - window[:2]).prod() - shared)
