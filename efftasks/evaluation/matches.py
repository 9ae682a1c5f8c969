"""Which detections match which objects, image by image: what average precision is computed from."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from efftasks.evaluation.coco_input import evaluator_input

__all__ = ["AREAS", "IOU_THRESHOLDS", "RECALLS", "ClassMatches", "Matches", "match"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_SIDES = {"s": (0.0, 32.0), "m": (32.0, 96.0), "l": (96.0, 1e5)}  # roots of COCO's areas
AREAS = ("all", *_SIDES)


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """Detections of one class, by falling score, matched with the objects of one range of areas.

    Equal scores are in the order of the image ids, as in pycocotools.

    Attributes:
        images: (D,) index of the image of each detection, into the images of the ground truth.
        scores: (D,).
        hits: bool (10, D), at each IoU threshold: it matches an object.
        ignored: bool (10, D): it counts neither as right nor as wrong.
        objects: (N,) number of objects to detect in each image.
        object_numbers: (D,) number of the object that each detection matches at an IoU of 0.5, from 1; 0 for none. An
            object has the same number for all detections of one ground truth.
    """

    images: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    object_numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches of all classes of one kind of score.

    Attributes:
        kind: ``bbox``, ``segm`` or ``keypoints``.
        images: N.
        areas: ``all``, ``s``, ``m``, ``l`` (keypoints: without ``s``) -> each class, ordered by category id.
    """

    kind: str
    images: int
    areas: Mapping[str, Sequence[ClassMatches]]


def match(
    ground_truth: Mapping[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str = "bbox",
    sigmas: Sequence[float] | None = None,
    name: str = "ground_truth",
) -> Matches:
    """Match detections with objects as COCO does, by faster-coco-eval; arguments and errors as of ``coco_scores``.

    Args:
        ground_truth: a COCO dict.
        detections: COCO results.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        sigmas: OKS sigmas; only for ``keypoints``.
        name: name of the ground truth in messages.
    """
    from faster_coco_eval import COCO
    from faster_coco_eval import COCOeval_faster as Evaluator

    given = evaluator_input(name, ground_truth, detections, kind, sigmas)
    categories = sorted(category["id"] for category in ground_truth["categories"])
    areas = [area for area in AREAS if not (area == "s" and kind == "keypoints")]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = given.dataset
        coco.createIndex()
        predicted = COCO()
        predicted.dataset = {**given.dataset, "annotations": []}
        predicted.createIndex()
        evaluation = Evaluator(
            coco, coco.loadRes(given.results) if given.results else predicted, kind, separate_eval=True
        )
        evaluation.params.imgIds = list(range(1, len(given.image_numbers) + 1))
        evaluation.params.catIds = categories
        evaluation.params.areaRng = [(0.0, 1e10), *(tuple(x**2 for x in _SIDES[area]) for area in areas[1:])]
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, float)
        evaluation.evaluate()
    # The evaluator's numbers are in the order of ids, indices in the order of the images.
    indices = np.argsort([given.image_numbers[image["id"]] for image in ground_truth["images"]])
    evaluated = iter(evaluation._evalImgs_cpp)  # by class, area and image
    by_class = [
        [_class_matches(list(itertools.islice(evaluated, len(indices))), indices) for _ in areas] for _ in categories
    ]
    return Matches(kind, len(indices), {area: [row[i] for row in by_class] for i, area in enumerate(areas)})


def _class_matches(images: Sequence[Any], indices: np.ndarray) -> ClassMatches:
    """The evaluator's results of one class in all images, in one order."""
    levels = len(IOU_THRESHOLDS)
    parts = [image.__getstate__() for image in images]
    scores = np.concatenate([np.array(part[2], np.float64) for part in parts])
    objects = np.zeros(len(indices), np.int64)
    objects[indices] = [len(part[3]) - sum(part[3]) for part in parts]
    order = np.argsort(-scores, kind="stable")
    matched, ignored = (
        np.concatenate([np.array(part[i], np.int64).reshape(levels, -1) for part in parts], axis=1)[:, order]
        for i in (0, 4)
    )
    ignored = ignored > 0
    images_of = np.repeat(indices, [len(part[2]) for part in parts])[order]
    hits = (matched > 0) & ~ignored
    return ClassMatches(images_of, scores[order], hits, ignored, objects, matched[0] * hits[0])
