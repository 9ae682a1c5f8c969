"""Mosaic: four images in one, with all their annotations.

Sources: the mosaic of YOLOv4 (arXiv 2004.10934, section 3.4) as in YOLOX (arXiv 2107.08430), and that of DEIM (arXiv
2412.04234, section 3.1, "dense one-to-one"), which has small, uncropped images.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.semantic_values import IGNORE
from efftasks.datasets.transforms.fit_image import fitted_size
from efftasks.datasets.transforms.tiles import Tile, TileCache, make_tile, put_tiles
from efftasks.datasets.transforms.warp import cut_objects
from efftasks.registry import TRANSFORMS
from efftasks.structures.image_fit import PAD_VALUE

__all__ = ["ObjectMosaic"]

_LAYOUTS = ("point", "grid")


class _Place(NamedTuple):
    """The position of an image on the canvas, and the region of the canvas that it fills."""

    corner: tuple[int, int]  # y, x of the top left corner of the image; may be negative
    first: tuple[int, int]  # y, x of the region
    last: tuple[int, int]  # y, x of its end, exclusive


@TRANSFORMS.register_module()
class ObjectMosaic(BaseTransform):
    """The image and three from a cache of earlier ones, on one canvas.

    A :class:`RandomWarp` after it brings the canvas to the size of the network input. Images that are not mosaicked
    are not resized.

    Args:
        size: (height, width) in pixels. In a config None stands for the config's ``image_size``.
        prob: probability of a mosaic.
        layout: ``point``: the canvas is twice ``size``; each image is resized to fit into ``size``, placed with one
            corner at a random point, and cropped to the canvas. ``grid``: each image is resized so that its shorter
            side is half of that of ``size``, and placed uncropped at the top left of a cell of a 2 x 2 grid.
        cache: number of earlier images to draw from; from a full cache a random one except the newest is removed.
        center: range of the random point of the layout ``point``, as factors of ``size``; 1 is the canvas center.
        fill: pixel value of the rest of the canvas, 0..255.
        min_visible: objects with a smaller part of the area of their box inside their region are dropped.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}
    replaces: ClassVar[dict[str, str]] = {
        "GridMosaic": "ObjectMosaic with layout='grid', and behind it RandomWarp with mode='stretch' and "
        "min_visible=0.0, as in configs/_base_/datasets/detr_pipelines.py"
    }

    def __init__(
        self,
        size: tuple[int, int] | None,
        prob: float = 0.5,
        layout: str = "point",
        cache: int = 40,
        center: tuple[float, float] = (0.5, 1.5),
        fill: int = PAD_VALUE,
        min_visible: float = 0.1,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        for field, value in (("prob", prob), ("min_visible", min_visible)):
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, allowed 0 to 1")
        if layout not in _LAYOUTS:
            raise ValueError(f"layout: got {layout!r}, allowed are {', '.join(map(repr, _LAYOUTS))}")
        if not 0 < center[0] <= center[1] < 2:
            raise ValueError(f"center: got {center}, allowed 0 < min <= max < 2")
        self.size = (int(size[0]), int(size[1]))
        self.prob = prob
        self.layout = layout
        self.cache = TileCache(cache)
        self.center = center
        self.fill = fill
        self.min_visible = min_visible

    def transform(self, results: dict) -> dict:
        """Add the image to the cache, and make a mosaic with probability ``prob``; sets ``img_shape``."""
        tile = make_tile(results, self._tile_size(results["img"].shape[:2]))
        self.cache.add(tile)
        if np.random.uniform() >= self.prob:
            return results
        return self._mosaic(results, [tile, *self.cache.draw(3)])

    def _tile_size(self, shape: tuple[int, int]) -> tuple[int, int]:
        if self.layout == "point":
            return fitted_size(shape, self.size)
        factor = min(self.size) // 2 / min(shape)
        return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))

    def _mosaic(self, results: dict, tiles: list[Tile]) -> dict:
        (height, width), places = self._around_a_point(tiles) if self.layout == "point" else _on_a_grid(tiles)
        image = np.full((height, width, 3), self.fill, np.uint8)
        with_labels = any(tile.labels is not None for tile in tiles)
        labels = np.full((height, width), IGNORE, np.uint8) if with_labels else None
        parts = []
        for tile, ((top, left), first, last) in zip(tiles, places):
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
        put_tiles(results, tiles, parts, (height, width))
        return results

    def _around_a_point(self, tiles: list[Tile]) -> tuple[tuple[int, int], list[_Place]]:
        """Size of the canvas, and the places of the images around a random point."""
        height, width = 2 * self.size[0], 2 * self.size[1]
        y, x = (int(side * np.random.uniform(*self.center)) for side in self.size)
        places = []
        for i, tile in enumerate(tiles):
            h, w = tile.image.shape[:2]
            top, left = (y - h if i < 2 else y), (x - w if i % 2 == 0 else x)
            first = max(0, top), max(0, left)
            places.append(_Place((top, left), first, (min(height, top + h), min(width, left + w))))
        return (height, width), places


def _on_a_grid(tiles: list[Tile]) -> tuple[tuple[int, int], list[_Place]]:
    """Size of the canvas, and the places of the images at the top left of the cells, in rows."""
    height = max(tile.image.shape[0] for tile in tiles)
    width = max(tile.image.shape[1] for tile in tiles)
    places = []
    for i, tile in enumerate(tiles):
        top, left = height * (i // 2), width * (i % 2)
        h, w = tile.image.shape[:2]
        places.append(_Place((top, left), (top, left), (top + h, left + w)))
    return (2 * height, 2 * width), places
