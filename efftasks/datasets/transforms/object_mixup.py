"""Two images in one, blended, with the objects of both.

Source: mixup (arXiv 1710.09412) for detection as YOLOX (arXiv 2107.08430) has it, with the cache of RTMDet. For mixing
within a batch, on whatever device it is, there is ``DenseBatchAugment`` (``efftasks/models/batch_augments.py``).
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
    """Half of the image and half of an earlier one that has objects, at the end of a pipeline, where all have one size.

    Pixels of which the two label maps do not say the same get label 255.

    Args:
        prob: of a mixture.
        cache: earlier images to draw from; a random one but the newest goes when there are more.
    """

    def __init__(self, prob: float = 0.1, cache: int = 20) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: got {prob}, allowed 0 to 1")
        self.prob = prob
        self.cache = TileCache(cache)

    def transform(self, results: dict) -> dict:
        """Maybe blend an earlier image in, and keep this one as it was.

        Raises:
            ValueError: the earlier image has another size.
        """
        size = results["img"].shape[:2]
        own = make_tile(results, size)
        if self.cache.tiles and np.random.uniform() < self.prob:
            (other,) = self.cache.draw(1)
            if other.image.shape[:2] != size:
                raise ValueError(
                    f"ObjectMixUp: got images of {other.image.shape[:2]} and {size} (height, width), expected one size "
                    "for all; put a RandomWarp or FitImage before it"
                )
            results["img"] = ((own.image.astype(np.uint16) + other.image) // 2).astype(np.uint8)
            if own.labels is not None:
                same = False if other.labels is None else own.labels == other.labels
                results["gt_seg_map"] = np.where(same, own.labels, IGNORE).astype(np.uint8)
            put_tiles(results, [own, other], [take_objects(results), other.objects], size)
        if len(own.objects.labels):
            self.cache.add(own)
        return results
