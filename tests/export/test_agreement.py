"""What is asked of files of lower precision: detections found again, label maps, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from efftasks.export.verify import JointReport, Verification, VerifyReport
from efftasks.export.verify_agreement import AgreementReport
from efftasks.export.verify_metrics import check_metrics
from efftasks.imaging.prediction import Prediction
from efftasks.structures.comparison import POLICIES, DetectionAgreement, policy_from, policy_to_dict

POLICY = DetectionAgreement(least_score=0.3, box_iou=0.6, score=0.1, mask_iou=0.6, keypoint_px=2.0, least_share=0.9)
SIZE = (320, 640)


def prediction(count: int = 10) -> Prediction:
    """Squares of 40 px in a row, the last one below the score that counts, with masks and two keypoints."""
    left = 50.0 * np.arange(count)
    boxes = np.stack([left, left * 0 + 10, left + 40, left * 0 + 50], 1).astype(np.float32)
    scores = np.full(count, 0.9, np.float32)
    scores[-1] = 0.2
    masks = np.zeros((count, *SIZE), bool)
    for mask, box in zip(masks, boxes.astype(int)):
        mask[box[1] : box[3], box[0] : box[2]] = True
    points = np.stack([np.stack([left, left * 0 + 20, left * 0 + 0.5], 1)] * 2, 1).astype(np.float32)
    labels = (np.arange(count) % 2).astype(np.int64)
    return Prediction("a.jpg", boxes, scores, labels, ("a", "b"), (1, 2), masks=masks, keypoints=points)


def compare(other: Prediction, base: Prediction | None = None, policy: DetectionAgreement = POLICY) -> AgreementReport:
    verification = Verification(["boxes"], policy)
    verification.add(prediction() if base is None else base, other, SIZE)
    report = verification.report()
    assert isinstance(report, AgreementReport)
    return report


def moved(field: str, by: Any, rows: Any = slice(None)) -> Callable[[Prediction], Prediction]:
    def change(found: Prediction) -> Prediction:
        values = getattr(found, field).copy()
        values[rows] += by
        return replace(found, **{field: values})

    return change


def test_equal_predictions_agree():
    report = compare(prediction())
    assert (report.passed, report.detections, report.matched, report.max_score_error) == (True, 18, 18, 0.0)
    assert "passed: 18 of 18 detections" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["policy"]["kind"] == "detections"


@pytest.mark.parametrize(
    ("change", "agree"),
    [
        (moved("boxes", [4, 0, 4, 0]), True),  # an IoU of 36 / 44
        (moved("boxes", [12, 0, 12, 0]), False),  # 28 / 52
        (moved("scores", -0.09), True),
        (moved("scores", -0.11), False),
        (moved("keypoints", [1.9, 0, 0]), True),
        (moved("keypoints", [1.5, 1.5, 0]), False),
        (moved("keypoints", [3.0, 0, 0], (slice(None), 0)), True),  # 1.5 px on average
        (moved("keypoints", [0, 0, 0.4]), True),  # their scores are not asked for
        (lambda found: replace(found, labels=1 - found.labels), False),
        (lambda found: replace(found, masks=np.roll(found.masks, 4, 2)), True),
        (lambda found: replace(found, masks=np.roll(found.masks, 12, 2)), False),
        (lambda found: found.filter(0.95), False),
        (lambda found: replace(found, boxes=found.boxes[::-1], labels=found.labels[::-1]), False),  # masks of others
    ],
)
def test_what_is_the_same_detection(change, agree):
    for report in (compare(change(prediction())), compare(prediction(), change(prediction()))):
        assert report.passed is agree
        assert ("FAILED" in str(report)) is not agree


@pytest.mark.parametrize(("rows", "passed"), [(0, True), (slice(0, 2), False)])
def test_the_share_counts_both_sides(rows, passed):
    report = compare(moved("scores", -0.65, rows)(prediction()))  # still there, but scored below what counts
    missing = 1 if rows == 0 else 2
    assert report.detections == 18 - missing and report.matched == 18 - 2 * missing
    assert report.passed is passed
    extra = prediction(12)
    assert compare(extra, extra.filter(0)).passed and not compare(extra, prediction(8)).passed


def test_masks_of_one_side_are_no_agreement():
    with pytest.raises(ValueError, match="masks: got them of one side only"):
        compare(replace(prediction(), masks=None))


def test_two_detections_do_not_share_one():
    base = prediction(3)
    doubled = replace(base, boxes=base.boxes[[0, 0, 0]], labels=base.labels[[0, 0, 0]], masks=None, keypoints=None)
    alone = replace(base.filter(0), masks=None, keypoints=None)
    report = compare(doubled, alone)
    assert (report.detections, report.matched) == (4, 2)


def test_the_keypoints_are_judged_at_640():
    verification = Verification(["boxes"], POLICY)
    verification.add(prediction(), moved("keypoints", [3.8, 0, 0])(prediction()), (1280, 640))
    assert verification.report().passed


def test_nothing_compared_is_no_pass():
    report = compare(prediction().filter(2), prediction().filter(2))
    assert not report.passed and "nothing was compared: on 1 images neither side" in str(report)


def test_label_maps_and_objects_by_one_policy():
    labels = np.zeros(SIZE, np.uint8)
    other = labels.copy()
    other[:5] = 1  # 1.6 % of the pixels
    a, b = (replace(prediction(), segmentation=values, semantic_classes=("x", "y")) for values in (labels, other))
    for policy, kind, passed in ((POLICY, AgreementReport, True), (POLICIES["fp32"], VerifyReport, False)):
        verification = Verification(["boxes", "segmentation"], policy)
        verification.add(a, b, SIZE)
        report = verification.report()
        assert isinstance(report, JointReport) and isinstance(report.parts["objects"], kind)
        assert report.passed is passed


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (0.5, ""),
        (0.4901, ""),
        (0.489, "metrics fell by more than 2 %: coco/bbox_mAP 0.4890 for 0.5000"),
        (float("nan"), "metrics fell by more than 2 %: coco/bbox_mAP nan for 0.5000"),
    ],
)
def test_metrics_may_fall_a_little(file, fault):
    unmeasured = {"coco/bbox_mAP_s": -1.0, "mIoU": float("nan")}  # of none in the data
    model = {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_l": 0.6, **unmeasured}
    metrics = {"pytorch": model, "artifact": {**model, "coco/bbox_mAP": file, "coco/bbox_mAP_l": 0.4}}  # few are large
    assert check_metrics(POLICY, metrics) == fault
    assert check_metrics(POLICIES["fp32"], metrics) == "" and check_metrics(POLICY, {}) == ""


def test_where_there_is_no_whole_every_part_counts():
    metrics = {"pytorch": {"PCK": 0.9, "NME": 0.9}, "artifact": {"PCK": 0.9, "NME": 0.5}}
    assert check_metrics(POLICY, metrics) == "metrics fell by more than 2 %: NME 0.5000 for 0.9000"


def test_policies_are_data():
    for policy in POLICIES.values():
        assert policy_from(json.loads(json.dumps(policy_to_dict(policy)))) == policy
    exact, half, int8 = POLICIES.values()
    assert exact.kind == "tolerance" and isinstance(half, DetectionAgreement) and isinstance(int8, DetectionAgreement)
    assert half.least_share > int8.least_share and half.metric_drop < int8.metric_drop
