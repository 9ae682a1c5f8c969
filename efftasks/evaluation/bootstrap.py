"""The bootstrap over images: average precision and mean IoU of resampled data sets.

A resample draws as many images as there are, with replacement, so that each image counts 0, 1, 2, ... times (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993). Objects and detections are matched inside of images, so that
matches are needed only once: the average precision of a resample is a sum with those counts as weights. All models of
a comparison are computed on the same resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efftasks.evaluation.matches import RECALLS, ClassMatches, Matches

__all__ = ["ResampledAP", "ap_of_resamples", "iou_of_resamples", "resample"]

_VALUES_AT_A_TIME = 1 << 21  # of detections times resamples


def resample(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each image counts in each resample: int (resamples, images), rows sum to ``images``."""
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    return draws.astype(np.int32)


class ResampledAP(NamedTuple):
    """Average precision in B resamples; NaN where a resample has no objects to detect.

    Attributes:
        values: metric, named as by ``coco_scores``, -> (B,).
        classwise: (B, classes), ordered by category id.
    """

    values: dict[str, np.ndarray]
    classwise: np.ndarray


def ap_of_resamples(matches: Matches, weights: np.ndarray) -> ResampledAP:
    """Average precision of data sets in which images are repeated.

    It is that of ``coco_scores`` for a data set that has the images so often under new ids, but for detections with
    exactly the same score as others: those of one image stay together, not those of one copy.

    Args:
        matches: of N images.
        weights: int (B, N), how often each image counts.
    """
    values: dict[str, np.ndarray] = {}
    classwise = np.empty(0)
    for area, classes in matches.areas.items():
        objects = _weighted(weights, np.stack([one.objects for one in classes], axis=1))
        aps = [_class_ap(one, weights, objects[:, k]) for k, one in enumerate(classes)]
        by_class = np.stack(aps, axis=1)  # (B, classes, thresholds)
        mean = _mean(by_class.mean(2))
        if area == "all":
            classwise = by_class.mean(2)
            values[f"{matches.kind}_mAP"] = mean
            values[f"{matches.kind}_mAP_50"] = _mean(by_class[:, :, 0])
            values[f"{matches.kind}_mAP_75"] = _mean(by_class[:, :, 5])
        else:
            values[f"{matches.kind}_mAP_{area}"] = mean
    return ResampledAP(values, classwise)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of each row without NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(1)
    return np.where(count > 0, np.where(defined, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def _weighted(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Counts (N, C) of the images, summed over each resample: int (B, C)."""
    return (weights.astype(float) @ counts.astype(float)).astype(np.int64)  # exact, and faster than integers


def _class_ap(matches: ClassMatches, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """AP (B, thresholds) of one class, which has ``objects`` (B,)."""
    result = np.full((len(weights), len(matches.hits)), np.nan)
    result[objects > 0] = 0.0
    counts = ~matches.ignored.all(0)
    images, hits, ignored = matches.images[counts], matches.hits[:, counts], matches.ignored[:, counts]
    if not hits.any():
        return result
    chosen = np.flatnonzero(objects)
    step = max(1, _VALUES_AT_A_TIME // len(images))
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        result[rows] = _chunk_ap(images, hits, ignored, weights[rows], objects[rows])
    return result


def _chunk_ap(
    images: np.ndarray, hits: np.ndarray, ignored: np.ndarray, weights: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """AP (B, thresholds) of B resamples with ``objects`` (B,), all > 0."""
    copies = weights[:, images]  # (B, D)
    ranks = np.cumsum(copies, axis=1)
    reached = _reached(objects)
    result = np.zeros((len(weights), len(hits)))
    for t, (hit, ignore) in enumerate(zip(hits, ignored)):
        places = np.flatnonzero(hit)
        if not len(places):
            continue
        right = np.cumsum(copies[:, places], axis=1)
        counted = ranks[:, places]
        skipped = np.flatnonzero(ignore)
        if len(skipped):
            before = np.cumsum(np.pad(copies[:, skipped], ((0, 0), (1, 0))), axis=1)
            counted = counted - before[:, np.searchsorted(skipped, places)]
        precision = right / (counted + np.spacing(1))  # the evaluators add it, too
        # Precision falls between two hits, so that its maximum over all later places is at a hit.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        levels = np.take_along_axis(reached, right, axis=1)
        gained = np.diff(levels, axis=1, prepend=0)  # levels of recall that a hit reaches first
        result[:, t] = (gained * envelope).sum(1) / len(RECALLS)
    return result


def _reached(objects: np.ndarray) -> np.ndarray:
    """Int (B, most + 1): how many levels of recall are reached with 0, 1, 2, ... of ``objects`` (B,) detected."""
    detected = np.arange(objects.max() + 1)
    kinds, index = np.unique(objects, return_inverse=True)
    return np.stack([np.searchsorted(RECALLS, detected / count, side="right") for count in kinds])[index]


def iou_of_resamples(confusion: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean IoU and IoU of the classes in data sets in which images are repeated, in percent.

    As by mmseg, the pixels of all images are summed, and a class that occurs neither in label maps nor in predictions
    is left out.

    Args:
        confusion: int (N, C, C), pixels of each image; rows are true classes.
        weights: int (B, N).

    Returns:
        (B,) and (B, C); NaN for classes left out.
    """
    right = np.diagonal(confusion, axis1=1, axis2=2)
    either = confusion.sum(1) + confusion.sum(2) - right
    right, either = (_weighted(weights, counts) for counts in (right, either))
    ious = np.where(either > 0, 100 * right / np.maximum(either, 1), np.nan)
    return _mean(ious), ious
