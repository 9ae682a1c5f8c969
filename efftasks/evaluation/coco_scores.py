"""COCO average precision of boxes, masks and keypoints, as a pure function."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efftasks.annotations.coco import check_coco_entries, without_size_warning
from efftasks.evaluation.coco_input import check_choice, evaluator_input

__all__ = [
    "EVALUATORS",
    "CocoScores",
    "coco_scores",
    "mean_precision",
    "score_coco",
]

EVALUATORS = ("faster-coco-eval", "pycocotools")
_KEYS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_KEYS_OF_KEYPOINTS = tuple(key for key in _KEYS if key != "mAP_s")  # COCO annotates none on small objects


def coco_scores(
    ground_truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str = "bbox",
    evaluator: str = "faster-coco-eval",
    sigmas: Sequence[float] | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """Average precision as COCO defines it: IoU of boxes or masks, or OKS of keypoints, 0.50 to 0.95.

    For each image and category the 100 detections of the highest scores count, of keypoints 20. An object without the
    annotation that is scored is ignored, like a crowd region: detections in its box (``segm``) or its doubled box
    (``keypoints``, as in COCO) count neither as right nor as wrong. An object without size (a box of zero, negative or
    unknown width or height, no mask and no keypoints) is left out, and one warning counts them: no detection could
    match it, so it would always count as missed.

    Args:
        ground_truth: a COCO dict with images, annotations and categories; it is not changed. ``iscrowd`` may be
            missing; a missing ``area`` is that of the box; ``num_keypoints`` is counted from the keypoints. Image ids
            are integers or strings. Image sizes are only needed for masks; missing ones are taken from the detections.
        detections: COCO results: image_id, category_id, score, and one of these in pixels of the original image:
            ``bbox`` xywh, ``segmentation`` as compressed RLE, or ``keypoints`` as a flat list of x, y, v.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        evaluator: ``faster-coco-eval``, or ``pycocotools``, the reference.
        sigmas: OKS sigmas of the P keypoints; only for ``keypoints``.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l`` in [0, 1], -1 where there are no objects
        (``segm_mAP`` likewise; ``keypoints_mAP`` without ``_s``); and the AP of each category, ordered by id, NaN
        where it has no objects. With objects and without detections all are 0.

    Raises:
        ValueError: an unknown kind or evaluator, sigmas missing or superfluous, a broken annotation, a detection of an
            image that is not in the ground truth, a mask of another size than its image, or a number of keypoints that
            differs from the number of sigmas.
    """
    check_coco_entries(ground_truth, "ground_truth")
    scores = score_coco("ground_truth", ground_truth, detections, kind, evaluator, sigmas)
    if scores.without_size:
        warnings.warn(without_size_warning("ground_truth", scores.without_size), stacklevel=2)
    return scores.values, scores.classwise


class CocoScores(NamedTuple):
    """What the evaluator computes for one kind."""

    values: dict[str, float]
    classwise: np.ndarray  # AP of each category, ordered by id
    precision: np.ndarray  # float (IoU, recall, category, area), -1 where there are no objects
    without_size: int  # number of objects left out


def score_coco(
    name: str,
    ground_truth: Mapping[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str,
    evaluator: str,
    sigmas: Sequence[float] | None,
) -> CocoScores:
    """As :func:`coco_scores`, with all that the evaluator gives, of a ground truth called ``name`` in messages."""
    check_choice("evaluator", evaluator, EVALUATORS)
    given = evaluator_input(name, ground_truth, detections, kind, sigmas)
    keys = [f"{kind}_{key}" for key in (_KEYS_OF_KEYPOINTS if kind == "keypoints" else _KEYS)]
    categories = sorted(category["id"] for category in ground_truth["categories"])
    objects = {row["category_id"] for row in given.dataset["annotations"] if _is_object(row)}
    if not given.results or not objects:  # evaluators fail on empty lists
        values = dict.fromkeys(keys, 0.0 if objects else -1.0)
        classwise = np.array([0.0 if i in objects else np.nan for i in categories])
        areas = len(keys) - 2  # all sizes, and one for each key of a size
        precision = np.broadcast_to(
            np.where(np.isnan(classwise), -1.0, 0.0)[:, None], (10, 101, len(categories), areas)
        )
        return CocoScores(values, classwise, precision, given.without_size)
    stats, precision = _evaluate(given.dataset, given.results, kind, evaluator, sigmas)
    precision = precision[..., -1]
    classwise = np.asarray([mean_precision(precision[:, :, k, 0]) for k in range(len(categories))])
    return CocoScores({key: float(stats[i]) for i, key in enumerate(keys)}, classwise, precision, given.without_size)


def mean_precision(precision: np.ndarray) -> float:
    """AP from some precisions of :class:`CocoScores`; NaN where there are no objects."""
    values = precision[precision > -1]
    return float(values.mean()) if values.size else float("nan")


def _is_object(row: Mapping[str, Any]) -> bool:
    """Whether an annotation must be detected; crowds and objects without labeled keypoints need not be."""
    return not row["iscrowd"] and row.get("num_keypoints", 1) > 0


def _evaluate(
    ground_truth: dict[str, Any], results: list[dict], kind: str, evaluator: str, sigmas: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's 12 statistics (10 for keypoints), and the precision by (IoU, recall, class, area, detections)."""
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluator

    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        coco = COCO()
        coco.dataset = ground_truth
        coco.createIndex()
        evaluation = Evaluator(coco, coco.loadRes(results), kind)
        evaluation.params.imgIds = sorted(image["id"] for image in ground_truth["images"])
        evaluation.params.catIds = sorted(category["id"] for category in ground_truth["categories"])
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, float)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), np.asarray(evaluation.eval["precision"])
