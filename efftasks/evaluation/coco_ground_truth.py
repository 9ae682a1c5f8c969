"""The annotations of a COCO dict as its evaluators need them: complete, valid, without objects of no extent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from efftasks.annotations.coco import (
    annotation_name,
    area_of,
    check_rle_size,
    image_size_of,
    is_crowd,
    keypoints_of,
    object_box,
    rle_runs,
    segmentation_of,
)
from efftasks.structures.errors import UserError

__all__ = ["GroundTruth", "complete_ground_truth"]

Size = tuple[int, int]


class GroundTruth(NamedTuple):
    """Annotations for the evaluators, and the number of those left out."""

    annotations: list[dict[str, Any]]
    without_size: int  # objects without extent, which no detection could match


def complete_ground_truth(
    name: str, ground_truth: Mapping[str, Any], kind: str, points: int, sizes: Mapping[Any, Size]
) -> GroundTruth:
    """Copy the annotations of the listed images and fill in the fields that evaluators read; they write into them.

    An object without a mask, for ``segm``, becomes a crowd region of its box. For ``keypoints`` the evaluators
    themselves ignore detections in the doubled box of an object without a labeled keypoint.

    Args:
        name: name of the ground truth in messages.
        ground_truth: a COCO dict.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        points: number of keypoints of an object, for ``keypoints``.
        sizes: (height, width) of images for which the ground truth states none.

    Raises:
        UserError: an annotation is broken.
    """
    image_sizes = {image["id"]: image_size_of(image) or sizes.get(image["id"]) for image in ground_truth["images"]}
    annotations: list[dict[str, Any]] = []
    without_size = 0
    for annotation in ground_truth.get("annotations") or ():
        if annotation["image_id"] not in image_sizes:
            continue
        try:
            entry = _complete(annotation, kind, points, image_sizes[annotation["image_id"]])
        except ValueError as error:
            raise UserError(f"{name}: {annotation_name(annotation)}: {error}") from error
        if entry is None:
            without_size += 1
        else:
            # New ids: pycocotools takes 0 for "no match", and two annotations of one id for the same object.
            annotations.append(dict(entry, id=len(annotations) + 1))
    return GroundTruth(annotations, without_size)


def _complete(annotation: Mapping[str, Any], kind: str, points: int, size: Size | None) -> dict[str, Any] | None:
    box = object_box(annotation, size)
    area = area_of(annotation)
    entry: dict[str, Any] = {key: annotation[key] for key in ("image_id", "category_id")}
    entry["iscrowd"] = int(is_crowd(annotation))
    mask = _encode_rle(segmentation_of(annotation), size) if kind == "segm" else None
    if mask is not None:
        entry["segmentation"] = mask
        box = box or _xyxy(coco_mask.toBbox(mask).tolist())
    if box is None:
        return None
    left, top, right, bottom = box
    entry["bbox"] = [left, top, right - left, bottom - top]
    entry["area"] = area or (right - left) * (bottom - top)
    if kind == "segm" and mask is None:
        entry.update(segmentation=_box_mask(box, size or (1, 1)), iscrowd=1)
    if kind == "keypoints":
        rows = keypoints_of(annotation, points) or [[0, 0, 0]] * points
        entry["keypoints"] = [value for row in rows for value in row]
        entry["num_keypoints"] = sum(row[2] > 0 for row in rows)
    return entry


def _box_mask(box: Sequence[float], size: Size) -> dict[str, Any]:
    """A box as the RLE of an image; it may have no pixels."""
    left, right = (min(max(x, 0), size[1]) for x in box[::2])
    top, bottom = (min(max(y, 0), size[0]) for y in box[1::2])
    return coco_mask.merge(coco_mask.frPyObjects([[left, top, left, bottom, right, bottom, right, top]], *size))


def _xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _encode_rle(segmentation: Any, size: Size | None) -> dict[str, Any] | None:
    """A mask as compressed RLE; None if it has no pixels, since no detection could match it."""
    if segmentation is None:
        return None
    if isinstance(segmentation, dict):
        check_rle_size(segmentation, size)
        if not rle_runs(segmentation)[1::2].any():
            return None
        height, width = (int(side) for side in segmentation["size"])
        rle = dict(size=[height, width], counts=segmentation["counts"])
        return coco_mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle
    # An image of unknown size has no detections either, so any size that holds the mask will do.
    height, width = size or [math.ceil(max(max(part[i::2]) for part in segmentation)) + 1 for i in (1, 0)]
    rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return rle if coco_mask.area(rle) else None
