"""Dropping small objects."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.transforms.warp import put_objects, take_objects
from efftasks.registry import TRANSFORMS

__all__ = ["FilterObjects"]


@TRANSFORMS.register_module()
class FilterObjects(BaseTransform):
    """Drop objects whose box is not wider and higher than ``min_side``. Crowd regions are kept, since they are ignored.

    Args:
        min_side: in pixels of the image at this step of the pipeline.
    """

    def __init__(self, min_side: float = 1.0) -> None:
        if min_side < 0:
            raise ValueError(f"min_side: got {min_side}, allowed are numbers from 0")
        self.min_side = min_side

    def transform(self, results: dict) -> dict:
        """Drop small objects."""
        objects = take_objects(results)
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
        keep = (sides > np.where(objects.ignored, 0, self.min_side)[:, None]).all(1)
        put_objects(results, objects.select(keep), results["img"].shape[:2])
        return results
