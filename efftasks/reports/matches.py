"""Matching detections with objects as COCO does it, at one threshold, and their overlaps across classes.

The evaluators keep neither overlaps between classes nor, for all detections, what they were matched with. AP itself is
the evaluator's (`evaluation/coco_scores.py`); tests hold the matches against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from efftasks.evaluation.coco_ground_truth import complete_ground_truth
from efftasks.evaluation.coco_input import FIELDS, image_numbers
from efftasks.evaluation.records import EvaluationRecord

__all__ = ["MATCHED_FROM", "ImageOverlaps", "Matches", "match", "oks"]

MATCHED_FROM = 0.5  # IoU or OKS of a match
_MOST = {"bbox": 100, "segm": 100, "keypoints": 20}  # detections of an image and class that COCO counts


@dataclass(frozen=True, eq=False)
class ImageOverlaps:
    """Detections and objects of one image, and their overlaps, whatever their classes.

    Attributes:
        detections: int64 (D,), indices into those of :class:`Matches`, by descending score.
        objects: int64 (M,), indices into those of :class:`Matches`.
        overlaps: float64 (D, M): IoU or OKS; with a crowd region the share of the detection inside.
    """

    detections: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections that count and all objects of a record, matched.

    Attributes:
        kind: ``bbox``, ``segm`` or ``keypoints``.
        names: of the classes, ordered by category id.
        image_ids: of the images, in the order in which they are counted.
        rows: int64 (D,), which of the record's detections each one is.
        scores: float64 (D,).
        labels: int64 (D,), indices into ``names``.
        images: int64 (D,), indices into ``image_ids``.
        matched: int64 (D,), index of the matched object; -1 for none.
        overlaps: float64 (D,), with the matched object, or the best with one of the class; 0 for none.
        ignored: bool (D,), neither right nor wrong: in a crowd region or on an object without the annotation.
        annotations: the M objects, complete (see :func:`complete_ground_truth`).
        object_labels: int64 (M,).
        object_images: int64 (M,).
        must_match: bool (M,), false for crowd regions and objects without the annotation.
        object_matches: int64 (M,), index of the matched detection; -1 for none.
        each_image: the overlaps of each image that has both, by index into ``image_ids``.
    """

    kind: str
    names: tuple[str, ...]
    image_ids: tuple[Any, ...]
    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    matched: np.ndarray
    overlaps: np.ndarray
    ignored: np.ndarray
    annotations: list[dict[str, Any]]
    object_labels: np.ndarray
    object_images: np.ndarray
    must_match: np.ndarray
    object_matches: np.ndarray
    each_image: dict[int, ImageOverlaps]

    @property
    def hits(self) -> np.ndarray:
        """Bool (D,): matched with an object that must be matched."""
        return (self.matched >= 0) & ~self.ignored

    @property
    def positives(self) -> np.ndarray:
        """int64 (C,): number of objects of each class that must be matched."""
        return np.bincount(self.object_labels[self.must_match], minlength=len(self.names))


def match(record: EvaluationRecord, kind: str, threshold: float = MATCHED_FROM) -> Matches:
    """Match the detections of a record with its ground truth.

    In each image and class, a detection takes the free object with which it overlaps most, those of higher scores
    first.

    Args:
        record: with objects.
        kind: one of the record's kinds.
        threshold: least IoU or OKS.
    """
    assert record.ground_truth is not None
    truth = record.ground_truth
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    index_of = {category["id"]: i for i, category in enumerate(categories)}
    numbers = {key: number - 1 for key, number in image_numbers(truth["images"]).items()}
    points = 0 if record.sigmas is None else len(record.sigmas)
    sizes = _mask_sizes(record) if kind == "segm" else {}
    annotations = complete_ground_truth("ground_truth", truth, kind, points, sizes).annotations
    rows = _counted(record.detections, kind, index_of, numbers)
    matches = Matches(
        kind=kind,
        names=tuple(category["name"] for category in categories),
        image_ids=tuple(numbers),
        rows=rows,
        scores=np.array([record.detections[i]["score"] for i in rows], float),
        labels=np.array([index_of[record.detections[i]["category_id"]] for i in rows], np.int64),
        images=np.array([numbers[record.detections[i]["image_id"]] for i in rows], np.int64),
        matched=np.full(len(rows), -1),
        overlaps=np.zeros(len(rows)),
        ignored=np.zeros(len(rows), bool),
        annotations=annotations,
        object_labels=np.array([index_of[row["category_id"]] for row in annotations], np.int64),
        object_images=np.array([numbers[row["image_id"]] for row in annotations], np.int64),
        must_match=np.array([not row["iscrowd"] and row.get("num_keypoints", 1) > 0 for row in annotations], bool),
        object_matches=np.full(len(annotations), -1),
        each_image={},
    )
    _match_images(matches, record, threshold)
    return matches


def _mask_sizes(record: EvaluationRecord) -> dict[Any, tuple[int, int]]:
    return {row["image_id"]: tuple(row["segmentation"]["size"]) for row in record.detections}


def _counted(
    detections: Sequence[Mapping[str, Any]], kind: str, index_of: Mapping[Any, int], numbers: Mapping[Any, int]
) -> np.ndarray:
    """Indices of the detections that count, by image and then by descending score, as the evaluators sort them."""
    if not detections:
        return np.zeros(0, np.int64)
    images = np.array([numbers[row["image_id"]] for row in detections])
    labels = np.array([index_of[row["category_id"]] for row in detections])
    scores = np.array([row["score"] for row in detections], float)
    groups = images * len(index_of) + labels
    order = np.lexsort((-scores, groups))  # stable
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    places = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    counted = np.sort(order[places < _MOST[kind]])
    return counted[np.lexsort((-scores[counted], images[counted]))]


def _match_images(matches: Matches, record: EvaluationRecord, threshold: float) -> None:
    by_image = np.argsort(matches.object_images, kind="stable")
    ends = np.searchsorted(matches.object_images[by_image], np.arange(len(matches.image_ids) + 1))
    detection_ends = np.searchsorted(matches.images, np.arange(len(matches.image_ids) + 1))
    values = [record.detections[i][FIELDS[matches.kind]] for i in matches.rows]
    for image in np.unique(matches.images):
        objects = by_image[ends[image] : ends[image + 1]]
        if not len(objects):
            continue
        objects = objects[np.argsort(~matches.must_match[objects], kind="stable")]  # ignored ones last
        detections = np.arange(detection_ends[image], detection_ends[image + 1])
        of_objects = [matches.annotations[i] for i in objects]
        if matches.kind == "keypoints":
            assert record.sigmas is not None
            overlaps = oks([values[i] for i in detections], of_objects, record.sigmas)
        else:
            crowds = [row["iscrowd"] for row in of_objects]
            field = FIELDS[matches.kind]
            overlaps = coco_mask.iou([values[i] for i in detections], [row[field] for row in of_objects], crowds)
        each = ImageOverlaps(detections, objects, np.asarray(overlaps, float))
        matches.each_image[int(image)] = each
        _match_image(matches, each, threshold)


def _match_image(matches: Matches, image: ImageOverlaps, threshold: float) -> None:
    is_class = matches.labels[image.detections][:, None] == matches.object_labels[image.objects][None]
    overlaps = np.where(is_class, image.overlaps, 0.0)
    must_match = matches.must_match[image.objects]
    if must_match.any():
        matches.overlaps[image.detections] = overlaps[:, must_match].max(1)
    is_crowd = np.array([bool(matches.annotations[i]["iscrowd"]) for i in image.objects])
    free = np.ones(len(image.objects), bool)
    for d in np.flatnonzero((overlaps >= threshold).any(1)):
        for group in (must_match, ~must_match):
            candidates = np.flatnonzero(group & (free | is_crowd) & (overlaps[d] >= threshold))
            if not len(candidates):
                continue
            best = candidates[::-1][overlaps[d, candidates[::-1]].argmax()]  # the last of equal ones, as COCO
            free[best] = False
            detection, matched = image.detections[d], image.objects[best]
            matches.matched[detection] = matched
            matches.overlaps[detection] = overlaps[d, best]
            matches.ignored[detection] = not must_match[best]
            matches.object_matches[matched] = detection
            break


def oks(poses: Sequence[Sequence[float]], objects: Sequence[Mapping[str, Any]], sigmas: Sequence[float]) -> np.ndarray:
    """Object keypoint similarity as COCO defines it: float64 (D, M).

    Args:
        poses: flat lists of x, y, v, one for each detection.
        objects: with ``keypoints``, ``bbox`` xywh and ``area``.
        sigmas: of the P keypoints.
    """
    predicted = np.asarray(poses, float).reshape(len(poses), -1, 3)
    variances = (2 * np.asarray(sigmas, float)) ** 2
    result = np.zeros((len(poses), len(objects)))
    for j, row in enumerate(objects):
        truth = np.asarray(row["keypoints"], float).reshape(-1, 3)
        labeled = truth[:, 2] > 0
        if labeled.any():
            distance = predicted[:, :, :2] - truth[:, :2]
        else:  # how far the pose is out of the doubled box
            x, y, width, height = row["bbox"]
            low, high = np.array([x - width, y - height]), np.array([x + 2 * width, y + 2 * height])
            distance = np.maximum(0, low - predicted[:, :, :2]) + np.maximum(0, predicted[:, :, :2] - high)
        errors = (distance**2).sum(2) / variances / (row["area"] + np.spacing(1)) / 2
        result[:, j] = np.exp(-(errors[:, labeled] if labeled.any() else errors)).mean(1)
    return result
