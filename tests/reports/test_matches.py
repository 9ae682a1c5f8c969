"""Matches against pycocotools' evaluation of each image, and the curves against its precision."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efftasks.evaluation.coco_scores import mean_precision, score_coco
from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports.curves import average_precision, class_curve, pooled_curve
from efftasks.reports.matches import match, oks

kinds = pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])


def evaluated(record: EvaluationRecord, kind: str) -> Any:
    """pycocotools' own evaluation, at 0.5 and of all sizes."""
    assert record.ground_truth is not None
    truth = copy.deepcopy(record.ground_truth)
    for row in truth["annotations"]:
        row["ignore"] = 0
    field = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[kind]
    names = ("image_id", "category_id", "score", field)
    with redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = truth
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes([{key: row[key] for key in names} for row in record.detections]), kind)
        evaluation.params.iouThrs = np.array([0.5])
        if record.sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(record.sigmas)
        evaluation.evaluate()
    return evaluation


@kinds
@pytest.mark.parametrize("seed", range(4))
def test_each_detection_is_matched_as_pycocotools_does(kind: str, seed: int, random_record: Callable) -> None:
    record = random_record(seed, (kind,) if kind != "keypoints" else ("bbox", "keypoints"))
    matches = match(record, kind)
    given = {
        (int(matches.rows[i]) + 1): (int(matches.matched[i]) + 1, bool(matches.ignored[i]))
        for i in range(len(matches.rows))
    }
    expected = {}
    for image in evaluated(record, kind).evalImgs:
        if image is not None and image["aRng"] == [0, 1e10]:
            for id_, matched, ignored in zip(image["dtIds"], image["dtMatches"][0], image["dtIgnore"][0]):
                expected[id_] = (int(matched), bool(ignored))
    assert expected == given
    assert sum(1 for matched, _ in given.values() if matched) > 10


@kinds
@pytest.mark.parametrize("seed", [5, 6])
def test_ap_of_the_curves_is_that_of_the_evaluator(kind: str, seed: int, random_record: Callable) -> None:
    record = random_record(seed, ("bbox", kind) if kind != "bbox" else ("bbox",))
    matches = match(record, kind)
    sigmas = record.sigmas if kind == "keypoints" else None
    scores = score_coco("truth", record.ground_truth, record.detections, kind, "faster-coco-eval", sigmas)
    for label in range(3):
        chosen = (matches.labels == label) & ~matches.ignored
        ap = average_precision(matches.scores[chosen], matches.hits[chosen], int(matches.positives[label]))
        assert ap == pytest.approx(mean_precision(scores.precision[0, :, label, 0]), abs=1e-9)
        assert 0 < ap < 1


def test_only_as_many_poses_count_as_coco_counts(record_of: Callable) -> None:
    box = [10, 10, 30, 30]
    detections = [(0, "cat", [50, 50, 10 + i, 9], 0.9 - 0.01 * i) for i in range(20)] + [(0, "cat", box, 0.1)]
    record = record_of([(0, "cat", box)], [*detections, (0, "dog", box, 0.05)], kinds=("bbox", "keypoints"))
    assert match(record, "bbox").rows.tolist() == list(range(22))
    assert match(record, "keypoints").rows.tolist() == [*range(20), 21]


def test_oks_by_hand() -> None:
    truth = dict(keypoints=[10, 10, 2, 20, 20, 1, 0, 0, 0], bbox=[0, 0, 20, 20], area=400.0)
    pose = [13.0, 14.0, 1, 20, 20, 1, 99, 99, 1]  # the first is 5 px off, the last is not labeled
    expected = (np.exp(-25 / (2 * 0.1) ** 2 / 400 / 2) + 1) / 2
    assert oks([pose], [truth], [0.1, 0.1, 0.1]) == pytest.approx(np.array([[expected]]))


def test_a_curve_by_hand(record_of: Callable) -> None:
    """Two cats: right at 0.9, wrong twice at 0.8, right at 0.6, wrong at 0.5."""
    a, b, nowhere = [0, 0, 20, 20], [50, 50, 20, 20], [0, 70, 10, 10]
    detections = [(0, "cat", a, 0.9), (0, "cat", nowhere, 0.8), (0, "cat", nowhere, 0.8), (0, "cat", b, 0.6)]
    curve = class_curve(match(record_of([(0, "cat", a), (0, "cat", b)], [*detections, (0, "cat", a, 0.5)]), "bbox"), 0)
    assert curve.scores.tolist() == [0.9, 0.8, 0.6, 0.5] and curve.positives == 2
    assert curve.precision == pytest.approx([1, 1 / 3, 2 / 4, 2 / 5])
    assert curve.recall == pytest.approx([1 / 2, 1 / 2, 1, 1])
    assert curve.f1 == pytest.approx([2 / 3, 0.4, 2 / 3, 4 / 7])
    assert curve.best == 2  # of equal values, the one with the higher recall
    assert curve.at(0.6) == pytest.approx((1 / 2, 1)) and curve.at(0.61) == pytest.approx((1 / 3, 1 / 2))
    assert np.isnan(curve.at(0.95)[0]) and curve.at(0.95)[1] == 0


def test_points_of_a_curve_lie_along_it_with_the_best(random_record: Callable) -> None:
    curve = pooled_curve(match(random_record(1, images=60), "bbox"))
    assert curve.points(1000).tolist() == list(range(len(curve.scores)))
    points = curve.points(20)
    assert len(points) <= 20 and curve.best in points and points[0] == 0
    steps = [np.abs(np.diff(values[points])) for values in (curve.scores, curve.recall)]
    assert max(step.max() for step in steps) < 0.25
