"""Loading images and label maps; errors name the file."""

from __future__ import annotations

import logging
from typing import ClassVar

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from efftasks.datasets.semantic_files import read_label
from efftasks.imaging.images import read_image
from efftasks.registry import TRANSFORMS
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = ["LoadImage", "LoadSegMap"]


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 (H, W, 3) BGR; sets ``img_shape`` and ``ori_shape`` (height, width).

    Args:
        pixel_range: (low, high), the values that become 0 and 255 in files with more than 8 bits per channel; values
            outside are clipped. None divides 16-bit values by 256, with one warning if they seem to use only a part of
            the range. In a config None stands for the config's ``pixel_range``.
    """

    linked_values: ClassVar[tuple[str, ...]] = ("pixel_range",)
    reads_images: ClassVar[bool] = True

    def __init__(self, pixel_range: PixelRange | None = None) -> None:
        self.pixel_range = checked_range(pixel_range)
        self._has_warned = torch.zeros((), dtype=torch.bool).share_memory_()  # one warning for all worker processes

    def transform(self, results: dict) -> dict:
        """Read one image.

        Raises:
            UnreadableImage: the file is missing or no image; the data set then skips it.
            UserError: the pixels are floats or signed numbers, and ``pixel_range`` is None.
        """
        path = results["img_path"]
        results["img"] = read_image(path, self.pixel_range, self._warn_once)
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results

    def _warn_once(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned.fill_(True)
            print_log(message, "current", logging.WARNING)


@TRANSFORMS.register_module()
class LoadSegMap(BaseTransform):
    """Read ``seg_map_path``, if it is present, into ``gt_seg_map``: uint8 (H, W), the index of a class or 255.

    ``reduce_zero_label`` and ``label_map`` of mmseg's data sets are applied, and then ``label_values`` of this
    package's (a :class:`efftasks.datasets.semantic_values.LabelValues`). A palette PNG is read as its indices.
    """

    def transform(self, results: dict) -> dict:
        """Read one label map.

        Raises:
            UnreadableImage: it is missing or cannot be decoded.
            UserError: it is no label map, see :func:`read_label`, or has numbers above 255 or without an entry in
                ``label_values``.
        """
        path = results.get("seg_map_path")
        if path is None:
            return results
        numbers = read_label(path)
        maximum = numbers.max(initial=0)
        if maximum > 255:
            raise UserError(f"{path}: the label map has the number {maximum}, expected the index of a class, 0..255")
        labels = numbers.astype(np.uint8)
        if results.get("reduce_zero_label"):
            labels = np.where(labels == 0, 255, np.where(labels == 255, 255, labels - 1)).astype(np.uint8)
        if results.get("label_map"):
            table = np.arange(256, dtype=np.uint8)
            table[list(results["label_map"])] = list(results["label_map"].values())
            labels = table[labels]
        if results.get("label_values") is not None:
            labels = results["label_values"].to_indices(labels, path)
        results["gt_seg_map"] = labels
        results["seg_fields"] = [*results.get("seg_fields", []), "gt_seg_map"]
        return results
