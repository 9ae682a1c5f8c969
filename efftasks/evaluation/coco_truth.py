"""The annotations of a COCO dict as its evaluators need them: whole, valid, and without what cannot be found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from efftasks.annotations.coco import (
    area_of,
    check_rle_size,
    image_size_of,
    is_crowd,
    keypoints_of,
    object_box,
    outline_of,
    rle_runs,
    whose,
)
from efftasks.structures.errors import UserError

__all__ = ["Truth", "complete_truth"]

Size = tuple[int, int]


class Truth(NamedTuple):
    """Annotations that evaluators can take, and what was left out."""

    annotations: list[dict[str, Any]]
    without_size: int  # objects that have no extent, so that nothing could ever match them


def complete_truth(
    name: str, ground_truth: Mapping[str, Any], kind: str, points: int, sizes: Mapping[Any, Size]
) -> Truth:
    """Copies of the annotations of known images with all that evaluators read; they write into them.

    An object without what is scored becomes a region in which nothing is wrong: its box, for ``segm``; for
    ``keypoints`` evaluators take the doubled box of one without a labelled keypoint.

    Args:
        name: of the ground truth, for messages.
        ground_truth: a COCO dict.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        points: how many keypoints there are, for ``keypoints``.
        sizes: (height, width) of images of which the ground truth states none.

    Raises:
        UserError: an annotation is broken.
    """
    known = {image["id"]: image_size_of(image) or sizes.get(image["id"]) for image in ground_truth["images"]}
    found: list[dict[str, Any]] = []
    without_size = 0
    for annotation in ground_truth.get("annotations") or ():
        if annotation["image_id"] not in known:
            continue
        try:
            whole = _completed(annotation, kind, points, known[annotation["image_id"]])
        except ValueError as error:
            raise UserError(f"{name}: {whose(annotation)}: {error}") from error
        if whole is None:
            without_size += 1
        else:
            # Ids anew: pycocotools takes an id of 0 for "not found", and one that occurs twice for the same object.
            found.append(dict(whole, id=len(found) + 1))
    return Truth(found, without_size)


def _completed(annotation: Mapping[str, Any], kind: str, points: int, size: Size | None) -> dict[str, Any] | None:
    box = object_box(annotation, size)
    area = area_of(annotation)
    whole: dict[str, Any] = {key: annotation[key] for key in ("image_id", "category_id")}
    whole["iscrowd"] = int(is_crowd(annotation))
    mask = _run_lengths(outline_of(annotation), size) if kind == "segm" else None
    if mask is not None:
        whole["segmentation"] = mask
        box = box or _corners(coco_mask.toBbox(mask).tolist())
    if box is None:
        return None
    left, top, right, bottom = box
    whole["bbox"] = [left, top, right - left, bottom - top]
    whole["area"] = area or (right - left) * (bottom - top)
    if kind == "segm" and mask is None:
        whole.update(segmentation=_region(box, size or (1, 1)), iscrowd=1)
    if kind == "keypoints":
        rows = keypoints_of(annotation, points) or [[0, 0, 0]] * points
        whole["keypoints"] = [value for row in rows for value in row]
        whole["num_keypoints"] = sum(row[2] > 0 for row in rows)
    return whole


def _region(box: Sequence[float], size: Size) -> dict[str, Any]:
    """A box as a mask of an image; it may hold no pixel."""
    left, right = (min(max(x, 0), size[1]) for x in box[::2])
    top, bottom = (min(max(y, 0), size[0]) for y in box[1::2])
    return coco_mask.merge(coco_mask.frPyObjects([[left, top, left, bottom, right, bottom, right, top]], *size))


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _run_lengths(outline: Any, size: Size | None) -> dict[str, Any] | None:
    """A mask as evaluators encode it; None where it has no pixel, so that nothing could match it."""
    if outline is None:
        return None
    if isinstance(outline, dict):
        check_rle_size(outline, size)
        if not rle_runs(outline)[1::2].any():
            return None
        height, width = (int(side) for side in outline["size"])
        rle = dict(size=[height, width], counts=outline["counts"])
        return coco_mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle
    # Where nobody knows the size of the image there is no detection in it either: any that holds the mask will do.
    height, width = size or [math.ceil(max(max(part[i::2]) for part in outline)) + 1 for i in (1, 0)]
    runs = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    return runs if coco_mask.area(runs) else None
