"""Errors by kind and what each kind costs in AP, as in TIDE (Bolya et al., 2020, arXiv 2008.08115).

A wrong detection, by its largest overlap with an object:

- ``place``: of its class, from the lower to the upper threshold;
- ``class``: of another class, at least the upper threshold;
- ``duplicate``: of its class, at least the upper threshold, and matched by a detection of a higher score;
- ``background``: at most the lower threshold;
- ``both``: the rest: of another class, and out of place.

``missed`` are unmatched objects that no error of class or place explains. The kinds are tested in this order, as in the
authors' package. Detections in ignored regions are no errors here; the package counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from efftasks.reports.curves import average_precision
from efftasks.reports.matches import MATCHED_FROM, Matches

__all__ = ["BACKGROUND_BELOW", "KINDS", "ErrorKinds", "find_errors"]

KINDS = ("class", "place", "both", "duplicate", "background", "missed")
BACKGROUND_BELOW = 0.1  # overlap of a detection that is on no object
_RIGHT = -1


@dataclass(frozen=True, eq=False)
class ErrorKinds:
    """The errors of matches.

    Attributes:
        kinds: int64 (D,), index into ``KINDS`` of each detection; -1 for none.
        objects: int64 (D,), the object that an error of class or place is about; else -1.
        missed: bool (M,), of each object.
        counts: number of errors of each kind.
        ap: at the threshold of the matches, the mean over classes, in [0, 1]; NaN without objects.
        costs: what AP would gain without the errors of a kind.
    """

    kinds: np.ndarray
    objects: np.ndarray
    missed: np.ndarray
    counts: dict[str, int]
    ap: float
    costs: dict[str, float]


def find_errors(matches: Matches, upper: float = MATCHED_FROM, lower: float = BACKGROUND_BELOW) -> ErrorKinds:
    """The errors of matches.

    Args:
        matches: from :func:`efftasks.reports.matches.match` with the threshold ``upper``.
        upper: overlap of a match.
        lower: overlap up to which a detection is on background.
    """
    kinds = np.where(matches.hits | matches.ignored, _RIGHT, KINDS.index("background"))
    objects = np.full(len(kinds), -1)
    for image in matches.each_image.values():
        columns = matches.must_match[image.objects]
        rows = kinds[image.detections] != _RIGHT
        if columns.any() and rows.any():
            detections, of_image = image.detections[rows], image.objects[columns]
            overlaps = image.overlaps[np.ix_(rows, columns)]
            kinds[detections], objects[detections] = _kinds_of(matches, detections, of_image, overlaps, upper, lower)
    missed = matches.must_match & (matches.object_matches < 0)
    missed[objects[objects >= 0]] = False
    counts = {name: int((kinds == i).sum()) for i, name in enumerate(KINDS[:-1])}
    ap = _mean_ap(matches, matches.scores, matches.hits, matches.labels, ~matches.ignored, matches.positives)
    costs = {name: max(0.0, _without(matches, kinds, objects, missed, name) - ap) for name in KINDS}
    return ErrorKinds(kinds, objects, missed, {**counts, "missed": int(missed.sum())}, ap, costs)


def _kinds_of(
    matches: Matches, detections: np.ndarray, objects: np.ndarray, overlaps: np.ndarray, upper: float, lower: float
) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of the wrong detections of an image, and the objects that errors of class and place are about."""
    is_class = matches.labels[detections][:, None] == matches.object_labels[objects][None]
    is_matched = matches.object_matches[objects] >= 0
    of_class, of_others = np.where(is_class, overlaps, 0.0), np.where(is_class, 0.0, overlaps)
    best, best_other = of_class.max(1), of_others.max(1)
    kinds = np.full(len(detections), KINDS.index("both"))
    kinds[overlaps.max(1) <= lower] = KINDS.index("background")
    kinds[np.where(is_matched, of_class, 0.0).max(1) >= upper] = KINDS.index("duplicate")
    kinds[best_other >= upper] = KINDS.index("class")
    kinds[(best >= lower) & (best <= upper)] = KINDS.index("place")
    about = np.full(len(detections), -1)
    for name, values in (("class", of_others), ("place", of_class)):
        chosen = kinds == KINDS.index(name)
        about[chosen] = objects[values[chosen].argmax(1)]
    about[(about >= 0) & (matches.object_matches[about] >= 0)] = -1  # it has been detected as well
    return kinds, about


def _without(matches: Matches, kinds: np.ndarray, objects: np.ndarray, missed: np.ndarray, name: str) -> float:
    """AP where the errors of one kind are mended.

    Of the errors of class and place about an object that is not detected, the one of the highest score becomes right.
    All others disappear; missed objects, too.
    """
    positives = matches.positives
    if name == "missed":
        positives = positives - np.bincount(matches.object_labels[missed], minlength=len(positives))
        return _mean_ap(matches, matches.scores, matches.hits, matches.labels, ~matches.ignored, positives)
    wrong = kinds == KINDS.index(name)
    hits, labels, kept = matches.hits.copy(), matches.labels.copy(), ~matches.ignored & ~wrong
    about = np.flatnonzero(objects >= 0)
    about = about[np.argsort(-matches.scores[about], kind="stable")]
    best = about[np.unique(objects[about], return_index=True)[1]]
    mended = best[wrong[best]]
    hits[mended], kept[mended] = True, True
    labels[mended] = matches.object_labels[objects[mended]]
    return _mean_ap(matches, matches.scores, hits, labels, kept, positives)


def _mean_ap(
    matches: Matches, scores: np.ndarray, hits: np.ndarray, labels: np.ndarray, kept: np.ndarray, positives: np.ndarray
) -> float:
    """Mean over the classes that have objects; if mending took all of a class away, over what is left of it."""
    values = []
    for label in np.flatnonzero(matches.positives):
        chosen = kept & (labels == label)
        if positives[label]:
            values.append(average_precision(scores[chosen], hits[chosen], int(positives[label])))
        elif chosen.any():
            values.append(0.0)
    return float(np.mean(values)) if values else float("nan")
