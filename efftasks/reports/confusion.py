"""Confusion matrix of detections and objects, with background."""

from __future__ import annotations

import numpy as np

from efftasks.reports.matches import MATCHED_FROM, Matches

__all__ = ["BACKGROUND", "confusion_matrix"]

BACKGROUND = "background"


def confusion_matrix(matches: Matches, score_thr: float, threshold: float = MATCHED_FROM) -> np.ndarray:
    """Count what objects were detected as: int64 (C + 1, C + 1), true classes by rows, background last.

    Detections of the right class are matched first, so that the diagonal counts those of the curves. What is left is
    then matched across classes, from the greatest overlap on. The rest of the detections are on background, and the
    rest of the objects are missed.

    Args:
        matches: with that threshold.
        score_thr: least score of detections that count.
        threshold: least overlap.
    """
    count = len(matches.names)
    matrix = np.zeros((count + 1, count + 1), np.int64)
    counted = (matches.scores >= score_thr) & ~matches.ignored
    right = counted & matches.hits
    np.add.at(matrix, (matches.labels[right], matches.labels[right]), 1)
    open_detections = counted & ~right
    open_objects = matches.must_match.copy()
    open_objects[matches.matched[right]] = False
    for image in matches.each_image.values():
        rows, columns = open_detections[image.detections], open_objects[image.objects]
        overlaps = np.where(rows[:, None] & columns[None], image.overlaps, 0.0)
        while overlaps.size and overlaps.max() >= threshold:
            d, m = np.unravel_index(overlaps.argmax(), overlaps.shape)
            detection, matched = image.detections[d], image.objects[m]
            matrix[matches.object_labels[matched], matches.labels[detection]] += 1
            open_detections[detection], open_objects[matched] = False, False
            overlaps[d], overlaps[:, m] = 0.0, 0.0
    np.add.at(matrix, (count, matches.labels[open_detections]), 1)
    np.add.at(matrix, (matches.object_labels[open_objects], count), 1)
    return matrix
