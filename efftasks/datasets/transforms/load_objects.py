"""Loading the annotated objects of an image as arrays."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Load ``instances`` as ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags`` and ``gt_area_shares``.

    An object without a mask gets a mask of zeros, one without keypoints gets keypoints of visibility 0. An image of a
    data set without object annotations (label maps only) gets one ignored region, the full image, so that its objects
    are not learned as background.

    Args:
        masks: load ``gt_masks`` too, BitmapMasks.
        keypoints: load ``gt_keypoints`` too, float32 (N, P, 3).
        num_keypoints: P, for data sets without keypoints in a training with others that have them.
    """

    def __init__(self, masks: bool = False, keypoints: bool = False, num_keypoints: int | None = None) -> None:
        if num_keypoints is not None and not (keypoints and num_keypoints > 0):
            raise ValueError(f"num_keypoints: got {num_keypoints}, allowed are numbers from 1, with keypoints=True")
        self.masks = masks
        self.keypoints = keypoints
        self.num_keypoints = num_keypoints

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        """See :mod:`efftasks.linking.declared`."""
        return {kind for kind in ("masks", "keypoints") if arguments[kind]}

    def transform(self, results: dict) -> dict:
        """Load the objects; the image is already loaded.

        Raises:
            UserError: a mask is broken or has not the size of the image, or the number of keypoints is unknown.
        """
        height, width = size = results["img_shape"]
        corners = [0, 0, width, 0, width, height, 0, height]
        full_image = dict(bbox=(0, 0, width, height), bbox_label=0, ignore_flag=1, mask=[corners])
        instances = results.get("instances", [full_image])
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
        masks = [_decode(results, instance) for instance in instances]
        corners = np.array([(mask.left, mask.top) for mask in masks], np.int64).reshape(-1, 2)
        return MaskWindows(corners, [mask.crop for mask in masks])

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
        missing = np.zeros((count, 3), np.float32)
        keypoints = [np.asarray(instance.get("keypoints", missing), np.float32) for instance in instances]
        return np.stack(keypoints) if keypoints else np.zeros((0, count, 3), np.float32)


def _decode(results: dict, instance: dict[str, Any]) -> DecodedMask:
    try:
        return decode_mask(instance.get("mask"), results["img_shape"])
    except ValueError as error:
        path, annotation = results.get("img_path"), instance.get("id")
        raise UserError(f"{path}: the mask of annotation {annotation} cannot be used: {error}") from error


def _area_shares(instances: list[dict], boxes: np.ndarray) -> np.ndarray:
    """Annotated area divided by the area of the box: float32 (N,), 1 if no area is annotated."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = np.array([instance.get("area") or 0.0 for instance in instances], np.float32)
    return np.where(areas > 0, areas / sides.prod(1).clip(1e-6), 1).astype(np.float32)
