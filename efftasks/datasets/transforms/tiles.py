"""A cache of earlier images with their annotations, for transforms that combine several images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from efftasks.datasets.transforms.fit_image import resize_pixels
from efftasks.datasets.transforms.warp import Objects, join_objects, move_objects, put_objects, take_objects

__all__ = ["Tile", "TileCache", "make_tile", "put_tiles"]


class Tile(NamedTuple):
    """An image with its annotations; masks are windows."""

    image: np.ndarray  # uint8 (h, w, 3)
    labels: np.ndarray | None  # uint8 (h, w)
    objects: Objects
    mirror: tuple[int, ...] | None  # ``keypoint_mirror``: order of the keypoints after a flip


def make_tile(results: dict[str, Any], shape: tuple[int, int]) -> Tile:
    """A copy of the image and its annotations, resized to ``shape`` (height, width); ``results`` is not changed."""
    resized = dict(results)
    matrix = resize_pixels(resized, shape)
    objects = move_objects(take_objects(results), matrix, shape)
    return Tile(resized["img"], resized.get("gt_seg_map"), objects, results.get("keypoint_mirror"))


def put_tiles(results: dict[str, Any], tiles: Sequence[Tile], parts: Sequence[Objects], size: tuple[int, int]) -> None:
    """Write the objects of several images, ``parts``, in a common frame (height, width), to a pipeline's dict."""
    mirrors = [tile.mirror for tile in tiles if tile.mirror is not None]
    if mirrors:
        results["keypoint_mirror"] = mirrors[0]
    put_objects(results, join_objects(parts), size)


class TileCache:
    """At most ``size`` earlier images; from a full cache a random one except the newest is removed.

    Source: the cache of RTMDet (arXiv 2212.07784, section 3.4), which saves reading more images from disk.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"cache: got {size}, allowed are numbers from 1")
        self.size = size
        self.tiles: list[Tile] = []

    def add(self, tile: Tile) -> None:
        """Add an image, and remove one if there are too many."""
        self.tiles.append(tile)
        if len(self.tiles) > self.size:
            self.tiles.pop(np.random.randint(0, len(self.tiles) - 1))

    def draw(self, count: int) -> list[Tile]:
        """Random images with replacement; the newest may be among them."""
        return [self.tiles[i] for i in np.random.randint(0, len(self.tiles), count)]
