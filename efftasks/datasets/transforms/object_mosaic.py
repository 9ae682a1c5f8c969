"""Four images around a random point, with all that is annotated in them.

Source: the mosaic of YOLOv4 (arXiv 2004.10934, section 3.4) in the form that YOLOX (arXiv 2107.08430) gave it, with the
cache of RTMDet (arXiv 2212.07784, section 3.4) instead of reading three more images from disk.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.transforms.fit_image import fitted_size, resize_pixels
from efftasks.datasets.transforms.warp import (
    IGNORE,
    Objects,
    cut_objects,
    join_objects,
    move_objects,
    put_objects,
    take_objects,
)
from efftasks.registry import TRANSFORMS

__all__ = ["ObjectMosaic"]


class _Tile(NamedTuple):
    """An image that fits into the frame of one, as it is kept: masks as windows, not as images."""

    image: np.ndarray  # uint8 (h, w, 3)
    labels: np.ndarray | None  # uint8 (h, w)
    objects: Objects
    mirror: tuple[int, ...] | None


@TRANSFORMS.register_module()
class ObjectMosaic(BaseTransform):
    """The image and three from a cache of earlier ones, on a canvas of twice ``size``.

    The canvas is for a :class:`RandomWarp` behind it, which brings it to ``size``: pixels keep their resolution until
    the scale is drawn. What is not mosaicked passes as it is.

    Args:
        size: (height, width) that each image fits into, in pixels. In a config None stands for the config's
            ``image_size``.
        prob: of a mosaic.
        cache: earlier images to draw from; a random one but the newest goes when there are more.
        centre: the point where the images meet, as a range of parts of ``size``; 1 is the middle of the canvas.
        fill: pixel value of what no image covers, 0..255.
        min_visible: objects of whose box a smaller part, by area, stays in their quarter are dropped.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}

    def __init__(
        self,
        size: tuple[int, int] | None,
        prob: float = 0.5,
        cache: int = 40,
        centre: tuple[float, float] = (0.5, 1.5),
        fill: int = 114,
        min_visible: float = 0.1,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        for field, value in (("prob", prob), ("min_visible", min_visible)):
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, allowed 0 to 1")
        if cache < 1:
            raise ValueError(f"cache: got {cache}, allowed are numbers from 1")
        if not 0 < centre[0] <= centre[1] < 2:
            raise ValueError(f"centre: got {centre}, allowed 0 < least <= most < 2")
        self.size = (int(size[0]), int(size[1]))
        self.prob = prob
        self.cache = cache
        self.centre = centre
        self.fill = fill
        self.min_visible = min_visible
        self._tiles: list[_Tile] = []

    def transform(self, results: dict) -> dict:
        """Keep the image; and maybe replace it and its objects by those of a mosaic. Sets ``img_shape``."""
        self._tiles.append(self._tile(results))
        if len(self._tiles) > self.cache:
            self._tiles.pop(np.random.randint(0, len(self._tiles) - 1))
        if np.random.uniform() >= self.prob:
            return results
        others = np.random.randint(0, len(self._tiles), 3)
        return self._mosaic(results, [self._tiles[-1], *(self._tiles[i] for i in others)])

    def _tile(self, results: dict) -> _Tile:
        shape = fitted_size(results["img"].shape[:2], self.size)
        fitted = dict(results)
        matrix = resize_pixels(fitted, shape)
        objects = move_objects(take_objects(results), matrix, shape)
        return _Tile(fitted["img"], fitted.get("gt_seg_map"), objects, results.get("keypoint_mirror"))

    def _mosaic(self, results: dict, tiles: list[_Tile]) -> dict:
        height, width = 2 * self.size[0], 2 * self.size[1]
        y, x = (int(side * np.random.uniform(*self.centre)) for side in self.size)
        image = np.full((height, width, 3), self.fill, np.uint8)
        with_labels = any(tile.labels is not None for tile in tiles)
        labels = np.full((height, width), IGNORE, np.uint8) if with_labels else None
        parts = []
        for i, tile in enumerate(tiles):
            h, w = tile.image.shape[:2]
            # Each image has one corner at the point, and ends where its quarter does.
            top, left = (y - h if i < 2 else y), (x - w if i % 2 == 0 else x)
            first, last = (max(0, top), max(0, left)), (min(height, top + h), min(width, left + w))
            frame = slice(first[0], last[0]), slice(first[1], last[1])
            source = slice(first[0] - top, last[0] - top), slice(first[1] - left, last[1] - left)
            image[frame] = tile.image[source]
            if labels is not None and tile.labels is not None:
                labels[frame] = tile.labels[source]
            inner = np.array([[1.0, 0, left - first[1]], [0, 1, top - first[0]]])
            part = cut_objects(tile.objects, inner, (last[0] - first[0], last[1] - first[1]), self.min_visible)
            parts.append(part.shift(first[1], first[0]))
        results["img"] = image
        results["img_shape"] = (height, width)
        if labels is not None:
            results["gt_seg_map"] = labels
        mirrors = [tile.mirror for tile in tiles if tile.mirror is not None]
        if mirrors:
            results["keypoint_mirror"] = mirrors[0]
        put_objects(results, join_objects(parts), (height, width))
        return results
