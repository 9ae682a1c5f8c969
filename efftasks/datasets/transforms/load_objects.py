"""The annotated objects of an image, from what the data set says of them to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.coco_masks import DecodedMask, decode_mask
from efftasks.datasets.transforms.mask_windows import MaskWindows
from efftasks.datasets.transforms.warp import Objects, put_objects
from efftasks.registry import TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["LoadObjects"]


@TRANSFORMS.register_module()
class LoadObjects(BaseTransform):
    """``instances`` as ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags`` and ``gt_area_shares``.

    An object without a mask has one of zeros, an object without keypoints has keypoints of visibility 0. An image of a
    data set that does not annotate objects at all, one with label maps only, gets a single region to ignore, the whole
    image, so that its objects are not learned as background.

    Args:
        masks: also ``gt_masks``, BitmapMasks.
        keypoints: also ``gt_keypoints``, float32 (N, P, 3).
        num_keypoints: P in data sets without keypoints, which are trained on beside another one that has them.
    """

    def __init__(self, masks: bool = False, keypoints: bool = False, num_keypoints: int | None = None) -> None:
        if num_keypoints is not None and not (keypoints and num_keypoints > 0):
            raise ValueError(f"num_keypoints: got {num_keypoints}, allowed are numbers from 1, with keypoints=True")
        self.masks = masks
        self.keypoints = keypoints
        self.num_keypoints = num_keypoints

    def transform(self, results: dict) -> dict:
        """Load the objects of an image that is loaded already.

        Raises:
            UserError: a mask is broken or is not of the image's size, or nothing says how many keypoints there are.
        """
        height, width = size = results["img_shape"]
        corners = [0, 0, width, 0, width, height, 0, height]
        whole = dict(bbox=(0, 0, width, height), bbox_label=0, ignore_flag=1, mask=[corners])
        instances = results.get("instances", [whole])
        boxes = np.array([instance["bbox"] for instance in instances], np.float32).reshape(-1, 4)
        objects = Objects(
            boxes,
            np.array([instance["bbox_label"] for instance in instances], np.int64),
            np.array([instance["ignore_flag"] for instance in instances], bool),
            self._load_masks(results, instances) if self.masks else None,
            self._load_keypoints(results, instances) if self.keypoints else None,
            _area_shares(instances, boxes),
        )
        put_objects(results, objects, size)
        return results

    def _load_masks(self, results: dict, instances: list[dict]) -> MaskWindows:
        found = [_decoded(results, instance) for instance in instances]
        corners = np.array([(part.left, part.top) for part in found], np.int64).reshape(-1, 2)
        return MaskWindows(corners, [part.crop for part in found])

    def _load_keypoints(self, results: dict, instances: list[dict]) -> np.ndarray:
        mirror, path = results.get("keypoint_mirror"), results.get("img_path")
        count = self.num_keypoints if mirror is None else len(mirror)
        if count is None:
            raise UserError(
                f"{path}: its data set has no keypoints; expected some, or LoadObjects with num_keypoints where it is "
                "trained on beside another one that has them"
            )
        if self.num_keypoints not in (None, count):
            raise UserError(f"LoadObjects.num_keypoints: got {self.num_keypoints}, expected {count}, as {path} has")
        none = np.zeros((count, 3), np.float32)
        rows = [np.asarray(instance.get("keypoints", none), np.float32) for instance in instances]
        return np.stack(rows) if rows else np.zeros((0, count, 3), np.float32)


def _decoded(results: dict, instance: dict[str, Any]) -> DecodedMask:
    try:
        return decode_mask(instance.get("mask"), results["img_shape"])
    except ValueError as error:
        whose = f"annotation {instance.get('id')}"
        raise UserError(f"{results.get('img_path')}: the mask of {whose} cannot be used: {error}") from error


def _area_shares(instances: list[dict], boxes: np.ndarray) -> np.ndarray:
    """Annotated area over that of the box: float32 (N,), 1 where no area is annotated."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = np.array([instance.get("area") or 0.0 for instance in instances], np.float32)
    return np.where(areas > 0, areas / sides.prod(1).clip(1e-6), 1).astype(np.float32)
