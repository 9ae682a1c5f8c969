"""Scale jitter and a class-balanced crop in one step, which resizes only the pixels of the crop.

Sources: scale jitter and crop of DeepLab (arXiv 1606.00915, section 4.1); class uniform sampling (Zhu et al., arXiv
1812.01593, section 3.3), here among the classes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.transforms.fit_image import fit_scales
from efftasks.registry import TRANSFORMS
from efftasks.structures.image_fit import PAD_VALUE, ImageFit

__all__ = ["RandomScaledCrop"]


@TRANSFORMS.register_module()
class RandomScaledCrop(BaseTransform):
    """Resize image and label map by a random factor and crop them to ``size``.

    An image that is smaller than the crop is padded on the right and at the bottom.

    Args:
        size: (height, width) of the crop in pixels. In a config None stands for the config's ``crop_size``, or
            ``image_size`` without one, with ``image_size`` as ``fit``.
        scale: range of the uniform random factor.
        fit: (height, width) into which the full image fits at factor 1; None for ``size``.
        class_share: share of the crops that are centered, as far as the border allows, on a random pixel of a random
            class of the image; the others are uniformly random. 0 is a plain random crop.
        pad_value: pixel value of the padding, 0..255.
        ignore: label of the padding, and of pixels without a class.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "crop_size", "fit": "image_size"}

    def __init__(
        self,
        size: tuple[int, int] | None,
        scale: tuple[float, float] = (0.5, 2.0),
        fit: tuple[int, int] | None = None,
        class_share: float = 0.5,
        pad_value: int = PAD_VALUE,
        ignore: int = 255,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: got {scale}, allowed 0 < min <= max")
        if not 0 <= class_share <= 1:
            raise ValueError(f"class_share: got {class_share}, allowed 0 to 1")
        self.size = (int(size[0]), int(size[1]))
        self.scale = scale
        self.fit = self.size if fit is None else (int(fit[0]), int(fit[1]))
        self.class_share = class_share
        self.pad_value = pad_value
        self.ignore = ignore

    @staticmethod
    def how_it_fits(arguments: Mapping[str, Any]) -> ImageFit:
        """See :mod:`efftasks.linking.declared`; crops may be smaller than the images of the test."""
        return ImageFit("letterbox", None, arguments["pad_value"])

    def transform(self, results: dict) -> dict:
        """Scale and crop; sets ``img_shape``.

        Raises:
            ValueError: image and label map differ in size.
        """
        image, labels = results["img"], results["gt_seg_map"]
        if image.shape[:2] != labels.shape:
            path, size = results.get("seg_map_path"), image.shape[:2]
            raise ValueError(f"{path}: got {labels.shape}, expected {size}, the image's height and width")
        shape = np.array(labels.shape)
        factor = np.random.uniform(*self.scale) * fit_scales(labels.shape, self.fit)[0]
        window = np.minimum(np.ceil(np.array(self.size) / factor).astype(int), shape)  # in pixels of the image
        top, left = self._corner(labels, window)
        part = (slice(top, top + window[0]), slice(left, left + window[1]))
        height, width = np.minimum(np.maximum(1, np.round(window * factor).astype(int)), self.size).tolist()
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        crop = cv2.resize(image[part], (width, height), interpolation=interpolation)
        results["img"] = self._pad(crop, self.pad_value)
        # INTER_NEAREST samples at the corners of pixels: labels would be off by half a pixel.
        label_crop = cv2.resize(labels[part], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        results["gt_seg_map"] = self._pad(label_crop, self.ignore)
        results["img_shape"] = self.size
        return results

    def _corner(self, labels: np.ndarray, window: np.ndarray) -> tuple[int, int]:
        """(top, left) of a window in the image."""
        room = np.array(labels.shape) - window
        corner = np.array([np.random.randint(0, side + 1) for side in room])
        if room.any() and np.random.rand() < self.class_share:
            classes = np.setdiff1d(np.unique(labels), self.ignore)
            if len(classes):
                pixels = np.flatnonzero(labels == np.random.choice(classes))
                center = np.array(np.unravel_index(np.random.choice(pixels), labels.shape))
                corner = np.clip(center - window // 2, 0, room)
        return int(corner[0]), int(corner[1])

    def _pad(self, array: np.ndarray, value: int) -> np.ndarray:
        widths = [(0, target - side) for target, side in zip(self.size, array.shape)]
        if not any(after for _, after in widths):
            return np.ascontiguousarray(array)
        return np.pad(array, [*widths, *[(0, 0)] * (array.ndim - 2)], constant_values=value)
