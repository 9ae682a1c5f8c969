"""Errors by kind, by hand and against the package of TIDE's authors; confusion and calibration by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports.confusion import confusion_matrix
from efftasks.reports.curves import best_thresholds, calibration, calibration_error
from efftasks.reports.error_kinds import KINDS, find_errors
from efftasks.reports.matches import match

A, B, NOWHERE = [0, 0, 20, 20], [60, 60, 20, 20], [0, 70, 10, 10]
CLOSE = [0, 0, 20, 7]  # IoU 0.35 with A


@pytest.mark.parametrize(
    ("kind", "detection", "cost"),
    [
        ("class", (0, "dog", A, 0.9), 0.5),  # of two classes with objects, one gains all
        ("place", (0, "cat", CLOSE, 0.9), 0.5),
        ("both", (0, "dog", CLOSE, 0.9), 0.0),
        ("background", (0, "cat", NOWHERE, 0.9), 0.0),
    ],
)
def test_one_error_of_each_kind(kind: str, detection: tuple, cost: float, record_of: Callable) -> None:
    record = record_of([(0, "cat", A), (0, "dog", B)], [detection, (0, "dog", B, 0.95)])
    errors = find_errors(match(record, "bbox"))
    explained = kind in ("class", "place")
    assert errors.counts == {**dict.fromkeys(KINDS, 0), kind: 1, "missed": 0 if explained else 1}
    assert errors.ap == pytest.approx(0.5)  # the dog is right, and before anything wrong
    assert errors.costs[kind] == pytest.approx(cost, abs=1e-9)


def test_a_duplicate_costs_what_follows_it(record_of: Callable) -> None:
    """Right, the same again, right: precision 1 up to a recall of 0.5, then 2 / 3 in 50 of 101 steps."""
    detections = [(0, "cat", A, 0.9), (0, "cat", A, 0.8), (0, "cat", B, 0.7)]
    errors = find_errors(match(record_of([(0, "cat", A), (0, "cat", B)], detections), "bbox"))
    assert errors.counts["duplicate"] == 1 and sum(errors.counts.values()) == 1
    assert errors.costs["duplicate"] == pytest.approx(50 / 101 / 3)
    assert sum(errors.costs.values()) == pytest.approx(errors.costs["duplicate"])


def test_an_object_is_mended_once_by_the_detection_of_the_highest_score(record_of: Callable) -> None:
    detections = [(0, "cat", CLOSE, 0.9), (0, "cat", [0, 0, 20, 8], 0.8), (0, "dog", A, 0.7)]
    errors = find_errors(match(record_of([(0, "cat", A)], detections), "bbox"))
    assert errors.counts == {**dict.fromkeys(KINDS, 0), "class": 1, "place": 2}
    assert errors.costs["place"] == pytest.approx(1.0)
    assert errors.costs["class"] == 0  # the object is that of a better detection


def test_detections_in_a_crowd_region_are_no_errors(record_of: Callable) -> None:
    record = record_of([(0, "cat", A)], [(0, "cat", A, 0.9), (0, "cat", B, 0.8)], crowds=[(0, "cat", [50, 50, 50, 50])])
    errors = find_errors(match(record, "bbox"))
    assert sum(errors.counts.values()) == 0 and errors.ap == pytest.approx(1.0)


def of_tide(record: EvaluationRecord) -> tuple[float, dict[str, float], dict[str, int]]:
    """AP, costs and counts by the authors' package, in [0, 1]."""
    tidecv = pytest.importorskip("tidecv")
    assert record.ground_truth is not None
    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    for image in record.images:
        truth.add_image(image["id"], image["file_name"])
    for row in record.ground_truth["annotations"]:
        truth.add_ground_truth(row["image_id"], row["category_id"], row["bbox"])
    for row in record.detections:
        found.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"])
    run: Any = tidecv.TIDE().evaluate(truth, found, mode=tidecv.TIDE.BOX)
    names = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), KINDS))
    costs = {names[kind.short_name]: cost / 100 for kind, cost in run.fix_main_errors().items()}
    return run.ap / 100, costs, {names[kind.short_name]: count for kind, count in run.count_errors().items()}


@pytest.mark.parametrize("seed", range(6))
def test_all_is_as_in_the_package_of_the_authors(
    seed: int, random_record: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # COCO's recalls differ from these in the last bit of some.
    monkeypatch.setattr("efftasks.reports.curves._RECALLS", np.arange(101) / 100)
    record = random_record(seed, crowds=False)
    for i, row in enumerate(record.detections):
        row["score"] += 1e-6 * i  # the package orders equal scores differently before and after mending
    ap, costs, counts = of_tide(record)
    errors = find_errors(match(record, "bbox"))
    assert errors.counts == counts and min(counts.values()) > 0
    assert errors.ap == pytest.approx(ap, abs=1e-9)
    assert errors.costs == pytest.approx(costs, abs=1e-9)


def test_confusion_by_hand(record_of: Callable) -> None:
    """A cat seen as a cat and as a dog, a dog as a cow, a cow missed, a cat on nothing; and a low score."""
    c = [30, 30, 12, 12]
    detections = [
        (0, "cat", A, 0.9),
        (0, "dog", A, 0.8),
        (0, "cow", B, 0.7),
        (0, "cat", NOWHERE, 0.6),
        (0, "cow", c, 0.1),
    ]
    record = record_of([(0, "cat", A), (0, "dog", B), (0, "cow", c)], detections)
    matches = match(record, "bbox")
    assert confusion_matrix(matches, 0.5).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    assert confusion_matrix(matches, 0.05)[2].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_rows_of_the_matrix_are_the_objects_and_columns_the_detections(
    threshold: float, random_record: Callable
) -> None:
    matches = match(random_record(3), "bbox")
    matrix = confusion_matrix(matches, threshold)
    counted = (matches.scores >= threshold) & ~matches.ignored
    assert matrix[:3].sum(1).tolist() == matches.positives.tolist()
    assert matrix[:, :3].sum(0).tolist() == np.bincount(matches.labels[counted], minlength=3).tolist()
    assert np.diag(matrix)[:3].tolist() == np.bincount(matches.labels[counted & matches.hits], minlength=3).tolist()


def test_calibration_by_hand(record_of: Callable) -> None:
    detections = [(0, "cat", A, 0.95), (0, "cat", NOWHERE, 0.91), (0, "dog", B, 1.0), (0, "dog", NOWHERE, 0.05)]
    matches = match(record_of([(0, "cat", A), (0, "dog", B)], detections), "bbox")
    bins = calibration(matches)
    assert [each.number for each in bins] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[9].mean_score == pytest.approx(2.86 / 3) and bins[9].share_right == pytest.approx(2 / 3)
    assert calibration_error(bins) == pytest.approx((0.05 + 3 * (2.86 / 3 - 2 / 3)) / 4)
    assert sum(each.number for each in calibration(matches, score_thr=0.5)) == 3
    assert best_thresholds(matches) == {"cat": 0.95, "dog": 1.0}
