"""What COCO's evaluators take: checked, complete, and with integers as ids of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from efftasks.annotations.coco import image_size_of
from efftasks.evaluation.coco_ground_truth import complete_ground_truth
from efftasks.structures.errors import UserError

__all__ = ["FIELDS", "EvaluatorInput", "check_choice", "evaluator_input", "image_numbers"]

FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # of annotations and of results


class EvaluatorInput(NamedTuple):
    """Ground truth and detections in the form that evaluators take."""

    dataset: dict[str, Any]  # COCO dict; image ids are 1, 2, ... in the order of the sorted ids
    results: list[dict[str, Any]]  # COCO results with those image ids
    image_numbers: dict[Any, int]  # image id -> that of the dataset
    without_size: int  # number of objects left out


def evaluator_input(
    name: str,
    ground_truth: Mapping[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str,
    sigmas: Sequence[float] | None,
) -> EvaluatorInput:
    """Check and complete what is scored, see :func:`coco_scores`.

    Args:
        name: name of the ground truth in messages.
        ground_truth: a COCO dict.
        detections: COCO results.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        sigmas: OKS sigmas; only for ``keypoints``.

    Raises:
        ValueError: as :func:`coco_scores`.
    """
    check_choice("kind", kind, tuple(FIELDS))
    if (sigmas is None) == (kind == "keypoints"):
        raise ValueError(f"sigmas: got {sigmas} for {kind!r}, expected one for each keypoint, and for keypoints alone")
    points = 0 if sigmas is None else len(sigmas)
    # Only the scored field: given a box beside a mask, the evaluators would take the object's size from the box.
    fields = ("image_id", "category_id", "score", FIELDS[kind])
    results = [{key: row[key] for key in fields} for row in detections]
    sizes = _check_detections(name, ground_truth["images"], results, kind, points)
    completed = complete_ground_truth(name, ground_truth, kind, points, sizes)
    numbers = image_numbers(ground_truth["images"])
    dataset = dict(
        # Evaluators read the sizes but do not need them, since all masks are RLEs.
        images=[dict(id=number, height=1, width=1) for number in numbers.values()],
        categories=ground_truth["categories"],
        annotations=[dict(row, image_id=numbers[row["image_id"]]) for row in completed.annotations],
    )
    results = [dict(row, image_id=numbers[row["image_id"]]) for row in results]
    return EvaluatorInput(dataset, results, numbers, completed.without_size)


def image_numbers(images: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """An integer for each image id, since evaluators do not take strings. The order decides among equal scores."""
    ids = [image["id"] for image in images]
    ordered = sorted(i for i in ids if not isinstance(i, str)) + sorted(i for i in ids if isinstance(i, str))
    return {key: number for number, key in enumerate(ordered, start=1)}


def check_choice(argument: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of the allowed.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{argument}: got {value!r}, allowed are {', '.join(map(repr, allowed))}")


def _check_detections(
    name: str, images: Sequence[dict], results: Sequence[dict], kind: str, points: int
) -> dict[Any, tuple[int, int]]:
    """Check that the detections fit the ground truth; evaluators would fail, or find no overlap.

    Returns:
        The (height, width) of each image that has a detected mask.
    """
    annotated_sizes = {image["id"]: image_size_of(image) for image in images}
    sizes: dict[Any, tuple[int, int]] = {}
    for row in results:
        image = row["image_id"]
        if image not in annotated_sizes:
            raise UserError(f"{name}: has no image {image!r}, in which there are detections; expected that of the data")
        if kind == "segm":
            height, width = row["segmentation"]["size"]
            sizes[image] = annotated_sizes[image] or sizes.get(image, (height, width))
            if (height, width) != sizes[image]:
                expected = list(sizes[image])
                raise ValueError(f"detections: got a mask of {[height, width]} in image {image}, expected {expected}")
        if kind == "keypoints" and len(row["keypoints"]) != 3 * points:
            number = len(row["keypoints"])
            raise ValueError(f"detections: got {number} numbers in keypoints, expected {3 * points}, 3 for each sigma")
    return sizes
