"""MixUp: two images blended into one, with the objects of both.

Source: mixup (arXiv 1710.09412) for detection as in YOLOX (arXiv 2107.08430), with the cache of RTMDet (arXiv
2212.07784). ``DenseBatchAugment`` (``efftasks/models/batch_augments.py``) mixes the images of a batch on its device.
"""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.semantic_values import IGNORE
from efftasks.datasets.transforms.tiles import TileCache, make_tile, put_tiles
from efftasks.datasets.transforms.warp import take_objects
from efftasks.registry import TRANSFORMS

__all__ = ["ObjectMixUp"]


@TRANSFORMS.register_module()
class ObjectMixUp(BaseTransform):
    """The mean of the image and an earlier one with objects. All images must have the same size.

    Pixels whose two labels differ get label 255.

    Args:
        prob: probability of mixing.
        cache: number of earlier images to draw from; from a full cache a random one except the newest is removed.
    """

    def __init__(self, prob: float = 0.1, cache: int = 20) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: got {prob}, allowed 0 to 1")
        self.prob = prob
        self.cache = TileCache(cache)

    def transform(self, results: dict) -> dict:
        """Blend an earlier image into this one with probability ``prob``, and add the original to the cache.

        Raises:
            ValueError: the earlier image has another size.
        """
        size = results["img"].shape[:2]
        tile = make_tile(results, size)
        if self.cache.tiles and np.random.uniform() < self.prob:
            (other,) = self.cache.draw(1)
            if other.image.shape[:2] != size:
                raise ValueError(
                    f"ObjectMixUp: got images of {other.image.shape[:2]} and {size} (height, width), expected one size "
                    "for all; put a RandomWarp or FitImage before it"
                )
            results["img"] = ((tile.image.astype(np.uint16) + other.image) // 2).astype(np.uint8)
            if tile.labels is not None:
                same = False if other.labels is None else tile.labels == other.labels
                results["gt_seg_map"] = np.where(same, tile.labels, IGNORE).astype(np.uint8)
            put_tiles(results, [tile, other], [take_objects(results), other.objects], size)
        if len(tile.objects.labels):
            self.cache.add(tile)
        return results
