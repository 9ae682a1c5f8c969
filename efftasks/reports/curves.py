"""Precision, recall and F1 over the score, the best score threshold of each class, and calibration, of matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from efftasks.reports.matches import Matches

__all__ = [
    "Bin",
    "Curve",
    "average_precision",
    "best_thresholds",
    "calibration",
    "calibration_error",
    "class_curve",
    "pooled_curve",
]

_RECALLS = np.linspace(0, 1, 101)  # at which COCO takes the precision


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class where the detections from each score on count.

    Attributes:
        name: of the class.
        positives: number of objects.
        scores: float64 (S,), different scores, descending.
        precision: float64 (S,).
        recall: float64 (S,); NaN without objects.
    """

    name: str
    positives: int
    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """float64 (S,): harmonic mean of precision and recall; 0 where nothing is right."""
        total = self.precision + self.recall
        return np.where(total > 0, 2 * self.precision * self.recall / np.where(total > 0, total, 1), 0.0)

    @property
    def best(self) -> int | None:
        """Index of the highest F1, of equal ones that of the lowest score; None where nothing is right."""
        if not len(self.scores) or not self.f1.max() > 0:
            return None
        return int(np.flatnonzero(self.f1 == self.f1.max())[-1])

    def points(self, most: int) -> np.ndarray:
        """Indices of at most this many points and the best one, evenly spaced along the curve: few where it is flat."""
        count = len(self.scores)
        if count <= most:
            return np.arange(count)
        steps = sum(np.abs(np.diff(np.nan_to_num(x), prepend=x[0])) for x in (self.scores, self.precision, self.recall))
        along = np.cumsum(np.nan_to_num(steps))
        chosen = np.searchsorted(along, np.linspace(0, along[-1], most - 1))
        return np.unique(np.append(chosen, count - 1 if self.best is None else self.best))

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall of the detections from a score on; a precision of NaN without any."""
        count = int(np.searchsorted(-self.scores, -threshold, side="right"))
        if not count:
            return float("nan"), 0.0 if self.positives else float("nan")
        return float(self.precision[count - 1]), float(self.recall[count - 1])


def class_curve(matches: Matches, label: int) -> Curve:
    """The curve of a class; its detections are those that are right or wrong, not the ignored ones."""
    return _curve(matches, matches.names[label], matches.labels == label, int(matches.positives[label]))


def pooled_curve(matches: Matches) -> Curve:
    """The curve of all classes together, by number of detections."""
    return _curve(matches, "all", np.ones(len(matches.labels), bool), int(matches.positives.sum()))


def _curve(matches: Matches, name: str, of_class: np.ndarray, positives: int) -> Curve:
    chosen = np.flatnonzero(of_class & ~matches.ignored)
    chosen = chosen[np.argsort(-matches.scores[chosen], kind="stable")]
    scores = matches.scores[chosen]
    right = matches.hits[chosen].cumsum()
    last = np.flatnonzero(np.diff(scores, append=-np.inf) != 0)  # of each score
    recall = right[last] / positives if positives else np.full(len(last), np.nan)
    return Curve(name, positives, scores[last], right[last] / (last + 1), recall)


def best_thresholds(matches: Matches) -> dict[str, float]:
    """The score of the highest F1 of each class that has right detections."""
    curves = [class_curve(matches, label) for label in range(len(matches.names))]
    return {curve.name: float(curve.scores[curve.best]) for curve in curves if curve.best is not None}


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """AP of one class at one threshold as COCO has it: mean of the best precision from each of 101 recalls on.

    Args:
        scores: (D,), in any order.
        hits: bool (D,).
        positives: number of objects, at least 1.
    """
    order = np.argsort(-scores, kind="stable")
    right = hits[order].cumsum()
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / positives, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(places, len(envelope))].mean())


class Bin(NamedTuple):
    """Detections with scores in an interval."""

    low: float
    high: float
    number: int
    mean_score: float  # NaN for none
    share_right: float  # NaN for none


def calibration(matches: Matches, bins: int = 10, score_thr: float = 0.0) -> list[Bin]:
    """How often detections of each score are right, in intervals of equal width.

    Args:
        matches: their threshold decides what is right.
        bins: number of intervals.
        score_thr: least score of detections that count.
    """
    chosen = ~matches.ignored & (matches.scores >= score_thr)
    scores, hits = matches.scores[chosen], matches.hits[chosen]
    places = np.minimum((scores * bins).astype(int), bins - 1)
    rows = []
    for i in range(bins):
        inside = places == i
        means = (float(values[inside].mean()) if inside.any() else float("nan") for values in (scores, hits))
        rows.append(Bin(i / bins, (i + 1) / bins, int(inside.sum()), *means))
    return rows


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error (Guo et al., 2017): the mean gap of score and share, by detection; NaN for none."""
    total = sum(each.number for each in bins)
    gaps = [each.number * abs(each.mean_score - each.share_right) for each in bins if each.number]
    return sum(gaps) / total if total else float("nan")
