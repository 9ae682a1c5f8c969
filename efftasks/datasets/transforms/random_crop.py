"""Zoom-out and IoU-constrained crops of SSD (arXiv 1512.02325, section 2.2).

The rules and the order of random numbers are those of mmdet's ``Expand`` and ``MinIoURandomCrop`` (Apache-2.0), except
for crowd regions: they do not constrain a crop, and their part inside a crop is still ignored in training.
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

_TRIALS = 50  # windows drawn for one minimum IoU
_ASPECT_RATIOS = (0.5, 2.0)  # range of height / width of a window


@TRANSFORMS.register_module()
class RandomZoomOut(BaseTransform):
    """Place the image and its annotations at a random position of a larger canvas.

    Args:
        ratio: range of the uniform random factor by which the canvas is larger.
        prob: probability of zooming out.
        fill: pixel value of the rest of the canvas, 0..255; in label maps it is 255.
    """

    def __init__(self, ratio: tuple[float, float] = (1.0, 4.0), prob: float = 0.5, fill: int = 0) -> None:
        if not 1 <= ratio[0] <= ratio[1]:
            raise ValueError(f"ratio: got {ratio}, allowed 1 <= min <= max")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: got {prob}, allowed 0 to 1")
        self.ratio = ratio
        self.prob = prob
        self.fill = fill

    def transform(self, results: dict) -> dict:
        """Zoom out with probability ``prob``; sets ``img_shape``."""
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
    """Crop to a random window whose IoU with every object is at least a random minimum.

    Objects whose center is outside the window are dropped.

    Args:
        prob: probability of trying to crop.
        min_ious: the minimum IoU is one of these, 0, or "no crop", with equal probability.
        min_size: minimum height and width of the window, relative to the image.
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
        """Crop with probability ``prob``; sets ``img_shape``."""
        if np.random.rand() > self.prob:
            return results
        objects = take_objects(results)
        window = self._draw_window(results["img"].shape[:2], objects.boxes[~objects.ignored])
        return results if window is None else _crop(results, objects, window)

    def _draw_window(self, shape: tuple[int, int], boxes: np.ndarray) -> np.ndarray | None:
        """A random window, int (4,) xyxy, for boxes (N, 4); None for no crop."""
        height, width = shape
        while True:
            min_iou = np.random.choice(self.choices)
            if min_iou == 1:
                return None
            for _ in range(_TRIALS):
                w = np.random.uniform(self.min_size * width, width)
                h = np.random.uniform(self.min_size * height, height)
                if not _ASPECT_RATIOS[0] <= h / w <= _ASPECT_RATIOS[1]:
                    continue
                left, top = np.random.uniform(0, width - w), np.random.uniform(0, height - h)
                window = np.array([left, top, left + w, top + h]).astype(np.int64)
                if (window[2:] == window[:2]).any():
                    continue
                if not len(boxes) or (_ious(boxes, window).min() >= min_iou and _has_centers(boxes, window).any()):
                    return window


def _crop(results: dict[str, Any], objects: Objects, window: np.ndarray) -> dict[str, Any]:
    left, top, right, bottom = window.tolist()
    size = (bottom - top, right - left)
    for key in ("img", "gt_seg_map"):
        if key in results:
            results[key] = results[key][top:bottom, left:right]
    results["img_shape"] = size
    objects = objects.select(_has_centers(objects.boxes, window) | objects.ignored)
    matrix = np.array([[1.0, 0, -left], [0, 1, -top]])
    put_objects(results, cut_objects(objects, matrix, size, min_visible=0.0), size)
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
