"""Resizing all images to one size, as exported models do: the artifact states the settings of this transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.semantic_values import IGNORE
from efftasks.datasets.transforms.mask_windows import WindowMasks, move_windows, windows_of
from efftasks.imaging.crops import warp_points
from efftasks.registry import TRANSFORMS
from efftasks.structures.image_fit import PAD_VALUE, ImageFit, size_pair

__all__ = ["FIT_MODES", "FitImage", "fit_scales", "fitted_size", "resize_pixels"]

FIT_MODES = ("letterbox", "stretch")


def fit_scales(shape: Sequence[int], size: Sequence[int], mode: str = "letterbox") -> tuple[float, float]:
    """The factors of (height, width) that fit an image of ``shape`` into ``size``; equal unless ``mode`` is stretch."""
    scales = size[0] / shape[0], size[1] / shape[1]
    return scales if mode == "stretch" else (min(scales), min(scales))


def fitted_size(shape: tuple[int, int], size: tuple[int, int], mode: str = "letterbox") -> tuple[int, int]:
    """(height, width) of an image of ``shape`` resized to fit into ``size``. mmcv's rule may exchange the two sides."""
    scales = fit_scales(shape, size, mode)
    return max(1, int(shape[0] * scales[0] + 0.5)), max(1, int(shape[1] * scales[1] + 0.5))


def resize_pixels(results: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Resize image and label map to ``shape`` (height, width); sets ``img_shape`` and ``scale_factor``.

    Returns:
        The affine map (2, 3), which the caller applies to boxes, masks and keypoints.
    """
    height, width = results["img"].shape[:2]
    scale = (shape[1] / width, shape[0] / height)
    results["img"] = cv2.resize(results["img"], shape[::-1], interpolation=cv2.INTER_LINEAR)
    results["scale_factor"] = scale
    results["img_shape"] = shape
    if "gt_seg_map" in results:
        # INTER_NEAREST samples at the corners of pixels: labels would be off by half a pixel.
        results["gt_seg_map"] = cv2.resize(results["gt_seg_map"], shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.array([[scale[0], 0, 0], [0, scale[1], 0]])


@TRANSFORMS.register_module()
class FitImage(BaseTransform):
    """Resize image, boxes, masks, keypoints and label map to ``size``.

    Args:
        size: (height, width) in pixels. In a config None stands for the config's ``image_size``.
        mode: ``letterbox`` keeps the aspect ratio, with padding on the right and at the bottom; ``stretch`` does not.
        pad_value: pixel value of the padding, 0..255. In label maps the padding is 255, in masks 0.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}
    fits_input: ClassVar[bool] = True  # resizes to the network input

    def __init__(self, size: tuple[int, int] | None, mode: str = "letterbox", pad_value: int = PAD_VALUE) -> None:
        if mode not in FIT_MODES:
            raise ValueError(f"mode: got {mode!r}, allowed are {', '.join(map(repr, FIT_MODES))}")
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        self.size = (int(size[0]), int(size[1]))
        self.mode = mode
        self.pad_value = pad_value

    @staticmethod
    def how_it_fits(arguments: Mapping[str, Any]) -> ImageFit:
        """See :mod:`efftasks.linking.declared`."""
        return ImageFit(arguments["mode"], size_pair(arguments["size"]), arguments["pad_value"])

    def transform(self, results: dict) -> dict:
        """Resize and pad; sets ``img_shape`` (height, width) and ``scale_factor`` (width, height), new over old."""
        shape = fitted_size(results["img"].shape[:2], self.size, self.mode)
        matrix = resize_pixels(results, shape)
        results["img"] = self._pad(results["img"], self.pad_value)
        if "gt_seg_map" in results:
            results["gt_seg_map"] = self._pad(results["gt_seg_map"], IGNORE)
        results["img_shape"] = self.size
        if "gt_bboxes" in results:
            boxes = results["gt_bboxes"].clone()
            boxes.rescale_(results["scale_factor"])
            boxes.clip_(shape)
            results["gt_bboxes"] = boxes
        if "gt_masks" in results:
            moved = move_windows(windows_of(results["gt_masks"]), matrix, shape)
            results["gt_masks"] = WindowMasks(moved, *self.size)
        if "gt_keypoints" in results:
            results["gt_keypoints"] = warp_points(results["gt_keypoints"], matrix)
        return results

    def _pad(self, array: np.ndarray, value: int) -> np.ndarray:
        below, right = self.size[0] - array.shape[0], self.size[1] - array.shape[1]
        if not (below or right):
            return array
        return cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(value,) * 3)
