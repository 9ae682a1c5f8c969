"""A 2x2 mosaic of small images under one random affine map.

Source: DEIM (arXiv 2412.04234, section 3.1, "dense one-to-one"): four times the objects at no cost in resolution.
Unlike the mosaic of YOLOX every tile is whole, and the map is about the centre.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes

from efftasks.datasets.transforms.affine import affine_about_centre, between_pixels, warp_boxes
from efftasks.registry import TRANSFORMS

__all__ = ["GridMosaic"]

# Boxes that are narrower or lower than this many pixels after the map are gone.
_LEAST_SIDE = 1.0


@TRANSFORMS.register_module()
class GridMosaic(BaseTransform):
    """The image and three from a cache of earlier ones, each at a quarter, then a random affine map.

    Args:
        tile_size: shorter side of a tile in pixels. In a config None stands for half of the shorter side of its
            ``image_size``.
        max_cached_images: earlier images to draw from; a random one but the newest goes when there are more.
        max_rotate_degree: the turn is at most this far in either direction.
        max_translate_ratio: the move is at most this part of width and height.
        scaling_ratio_range: of the scale.
        fill: pixel value of what lies outside, 0..255.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"tile_size": "shorter_half"}

    def __init__(
        self,
        tile_size: int = 320,
        max_cached_images: int = 50,
        max_rotate_degree: float = 10.0,
        max_translate_ratio: float = 0.1,
        scaling_ratio_range: tuple[float, float] = (0.5, 1.5),
        fill: int = 0,
    ) -> None:
        if tile_size < 1 or max_cached_images < 1:
            raise ValueError(
                f"tile_size, max_cached_images: got {tile_size}, {max_cached_images}, allowed are numbers from 1"
            )
        if not 0 < scaling_ratio_range[0] <= scaling_ratio_range[1]:
            raise ValueError(f"scaling_ratio_range: got {scaling_ratio_range}, allowed are 0 < least <= most")
        self.tile_size = tile_size
        self.max_cached_images = max_cached_images
        self.max_rotate_degree = max_rotate_degree
        self.max_translate_ratio = max_translate_ratio
        self.scaling_ratio_range = scaling_ratio_range
        self.fill = fill
        self._cache: list[dict[str, Any]] = []

    def transform(self, results: dict) -> dict:
        """Replace image and objects by those of a mosaic."""
        self._remember(self._tile(results))
        others = np.random.randint(0, len(self._cache), 3)
        tiles = [self._cache[-1], *(self._cache[i] for i in others)]
        image, parts = _on_grid(tiles, self.fill)
        matrix = self._draw_matrix(image.shape[:2])
        height, width = image.shape[:2]
        image = cv2.warpAffine(image, between_pixels(matrix), (width, height), borderValue=(self.fill,) * 3)
        boxes = warp_boxes(parts["boxes"], matrix).clip(0, [width, height, width, height]).astype(np.float32)
        kept = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
        results["img"] = image
        results["img_shape"] = image.shape[:2]
        results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(boxes[kept]))
        results["gt_bboxes_labels"] = parts["labels"][kept]
        results["gt_ignore_flags"] = parts["ignored"][kept]
        return results

    def _tile(self, results: dict) -> dict[str, Any]:
        height, width = results["img"].shape[:2]
        scale = self.tile_size / min(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        factors = np.array([size[0] / width, size[1] / height] * 2, dtype=np.float32)
        return dict(
            image=cv2.resize(results["img"], size, interpolation=cv2.INTER_LINEAR),
            boxes=results["gt_bboxes"].numpy() * factors,
            labels=results["gt_bboxes_labels"],
            ignored=results["gt_ignore_flags"],
        )

    def _remember(self, tile: dict[str, Any]) -> None:
        self._cache.append(tile)
        if len(self._cache) > self.max_cached_images:
            self._cache.pop(np.random.randint(0, len(self._cache) - 1))

    def _draw_matrix(self, size: tuple[int, int]) -> np.ndarray:
        limit = self.max_translate_ratio * np.array(size[::-1])
        return affine_about_centre(
            size,
            degrees=np.random.uniform(-self.max_rotate_degree, self.max_rotate_degree),
            shift=tuple(np.random.uniform(-limit, limit)),
            scale=np.random.uniform(*self.scaling_ratio_range),
        )


def _on_grid(tiles: list[dict[str, Any]], fill: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Tiles at the top left of the cells of a 2x2 grid, rows first, and their objects in its pixels."""
    height = max(tile["image"].shape[0] for tile in tiles)
    width = max(tile["image"].shape[1] for tile in tiles)
    canvas = np.full((2 * height, 2 * width, 3), fill, dtype=tiles[0]["image"].dtype)
    boxes = []
    for i, tile in enumerate(tiles):
        y, x = height * (i // 2), width * (i % 2)
        h, w = tile["image"].shape[:2]
        canvas[y : y + h, x : x + w] = tile["image"]
        boxes.append(tile["boxes"] + np.array([x, y, x, y], dtype=np.float32))
    parts = {key: np.concatenate([tile[key] for tile in tiles]) for key in ("labels", "ignored")}
    return canvas, dict(parts, boxes=np.concatenate(boxes))
