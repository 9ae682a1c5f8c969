"""Earlier images with all that is annotated in them, kept for the transforms that put several images together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from efftasks.datasets.transforms.fit_image import resize_pixels
from efftasks.datasets.transforms.warp import Objects, join_objects, move_objects, put_objects, take_objects

__all__ = ["Tile", "TileCache", "make_tile", "put_tiles"]


class Tile(NamedTuple):
    """An image as it is kept: masks as windows, not as images."""

    image: np.ndarray  # uint8 (h, w, 3)
    labels: np.ndarray | None  # uint8 (h, w)
    objects: Objects
    mirror: tuple[int, ...] | None  # which keypoints change places in a mirror


def make_tile(results: dict[str, Any], shape: tuple[int, int]) -> Tile:
    """A copy of an image and its objects, resized to ``shape`` (height, width); a pipeline's dict stays as it is."""
    resized = dict(results)
    matrix = resize_pixels(resized, shape)
    objects = move_objects(take_objects(results), matrix, shape)
    return Tile(resized["img"], resized.get("gt_seg_map"), objects, results.get("keypoint_mirror"))


def put_tiles(results: dict[str, Any], tiles: Sequence[Tile], parts: Sequence[Objects], size: tuple[int, int]) -> None:
    """Write the objects of several images, ``parts``, whose frame is now (height, width), to a pipeline's dict."""
    mirrors = [tile.mirror for tile in tiles if tile.mirror is not None]
    if mirrors:
        results["keypoint_mirror"] = mirrors[0]
    put_objects(results, join_objects(parts), size)


class TileCache:
    """The last images, and some older ones: a random one but the newest goes when there are more than ``size``.

    Source: the cache of RTMDet (arXiv 2212.07784, section 3.4), instead of reading more images from disk.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"cache: got {size}, allowed are numbers from 1")
        self.size = size
        self.tiles: list[Tile] = []

    def add(self, tile: Tile) -> None:
        """Keep one more."""
        self.tiles.append(tile)
        if len(self.tiles) > self.size:
            self.tiles.pop(np.random.randint(0, len(self.tiles) - 1))

    def draw(self, count: int) -> list[Tile]:
        """Some at random, the newest among them, with repetitions."""
        return [self.tiles[i] for i in np.random.randint(0, len(self.tiles), count)]
