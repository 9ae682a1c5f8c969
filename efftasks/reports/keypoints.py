"""The part of a report on single keypoints: their similarity, their distance from the truth, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports import page
from efftasks.reports.drawing import draw_bars, draw_lines
from efftasks.reports.matches import Matches, match
from efftasks.reports.parts import Part, ReportSettings

__all__ = ["KeypointErrors", "keypoint_errors", "keypoint_part"]

_SHARES = (0.05, 0.1, 0.2)  # of the size of an object: distances of PCK
_LIMITS = np.linspace(0, 0.5, 51)


class KeypointErrors(NamedTuple):
    """Of the labeled keypoints of matched objects; NaN for the others.

    Attributes:
        similarity: float64 (N, P), the term of OKS.
        distance: float64 (N, P), in square roots of the area of the object.
        pixels: float64 (N, P).
    """

    similarity: np.ndarray
    distance: np.ndarray
    pixels: np.ndarray


def keypoint_errors(record: EvaluationRecord, matches: Matches) -> KeypointErrors:
    """Compare the keypoints of matched objects with the annotated ones.

    Args:
        record: with keypoints.
        matches: of ``keypoints``.
    """
    assert record.sigmas is not None
    hits = np.flatnonzero(matches.hits)
    objects = [matches.annotations[i] for i in matches.matched[hits]]
    count = len(record.sigmas)
    truth = np.array([row["keypoints"] for row in objects], float).reshape(-1, count, 3)
    predicted = np.array([record.detections[i]["keypoints"] for i in matches.rows[hits]], float).reshape(-1, count, 3)
    areas = np.array([row["area"] for row in objects], float)[:, None]
    pixels = np.linalg.norm(predicted[..., :2] - truth[..., :2], axis=-1)
    pixels[truth[..., 2] <= 0] = np.nan
    variances = (2 * np.asarray(record.sigmas)) ** 2
    similarity = np.exp(-(pixels**2) / variances / (areas + np.spacing(1)) / 2)
    return KeypointErrors(similarity, pixels / np.sqrt(areas), pixels)


def keypoint_part(record: EvaluationRecord, settings: ReportSettings) -> Part:
    """The part on single keypoints; empty where no object is matched."""
    matches = match(record, "keypoints", settings.iou_thr)
    errors = keypoint_errors(record, matches)
    names = _names(record)
    if not len(errors.pixels):
        return Part()
    columns = ("keypoint", "labeled", "OKS", "median px", *(f"PCK {share:g}" for share in _SHARES))
    rows: list[list[Any]] = []
    for i, name in enumerate(names):
        labeled = ~np.isnan(errors.pixels[:, i])
        distance = errors.distance[labeled, i]
        values: list[Any] = [None] * 5
        if labeled.any():
            means = [float(errors.similarity[labeled, i].mean()), float(np.median(errors.pixels[labeled, i]))]
            values = [*means, *(float((distance <= share).mean()) for share in _SHARES)]
        rows.append([name, int(labeled.sum()), *values])
    note = (
        f"Of {len(errors.pixels)} poses with an OKS from {settings.iou_thr:g} on. OKS: the mean term of this keypoint. "
        "PCK: the share of keypoints within that part of the object's size (the square root of its area)."
    )
    shares = {name: _within(errors.distance[:, i]) for i, name in enumerate(names)}
    drawn = [
        page.figure(
            draw_bars(dict(zip(names, (np.nan if row[2] is None else row[2] for row in rows))), "OKS by keypoint"),
            "OKS by keypoint",
        ),
        page.figure(
            draw_lines(_LIMITS, shares, "share of keypoints within a distance", "distance, in sizes of the object"),
            "distances of keypoints",
        ),
    ]
    table = page.table(columns, rows, sortable=True)
    section = page.section("Errors by keypoint", page.paragraph(note), *drawn, table)
    figures = dict(by_keypoint=[dict(zip(columns, row)) for row in rows], matched=len(errors.pixels))
    return Part([section], figures, {"keypoints": (columns, rows)})


def _within(distances: np.ndarray) -> np.ndarray:
    """The share of labeled keypoints within each limit."""
    labeled = distances[~np.isnan(distances)]
    return np.searchsorted(np.sort(labeled), _LIMITS, side="right") / max(len(labeled), 1)


def _names(record: EvaluationRecord) -> Sequence[str]:
    """Names of the keypoints; numbers where the ground truth has none."""
    assert record.ground_truth is not None and record.sigmas is not None
    named = (category.get("keypoints") for category in record.ground_truth["categories"])
    count = len(record.sigmas)
    return next((names for names in named if names and len(names) == count), [str(i + 1) for i in range(count)])
