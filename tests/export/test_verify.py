import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from efftasks.export.verify import (
    JointReport,
    ObjectComparison,
    Tolerance,
    Verification,
    VerifyReport,
    compare_predictions,
)
from efftasks.imaging.masks import masks_on_image
from efftasks.imaging.prediction import Prediction


def prediction(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Prediction:
    return Prediction(
        "a.jpg",
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        ("a", "b"),
        (1, 2),
    )


BASE = prediction([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9, 0.5, 0.1], [0, 1, 0])
SIZE = [(640, 640)]


def test_equal_sides_pass():
    report = compare_predictions([BASE], [BASE], SIZE)
    assert report.passed and report.max_box_error_px == 0 and report.unmatched == 0
    assert report.detections == 2  # the last row may be cut on one side only


def test_near_ties_may_change_places():
    a = prediction([[0, 0, 10, 10], [20, 20, 40, 40], [1, 1, 2, 2]], [0.5, 0.49999, 0.1], [0, 0, 0])
    b = prediction([[20, 20, 40, 40], [0, 0, 10, 10], [1, 1, 2, 2]], [0.5, 0.49999, 0.1], [0, 0, 0])
    assert compare_predictions([a], [b], SIZE).passed


@pytest.mark.parametrize(
    ("other", "passed"),
    [
        (prediction([[0, 0, 10, 10.04], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9, 0.5, 0.1], [0, 1, 0]), True),
        (prediction([[0, 0, 10, 10.06], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9, 0.5, 0.1], [0, 1, 0]), False),
        (prediction([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 6, 6]], [0.90005, 0.5, 0.1], [0, 1, 0]), True),
        (prediction([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9002, 0.5, 0.1], [0, 1, 0]), False),
        (prediction([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9, 0.5, 0.1], [0, 0, 0]), False),
        (prediction([[0, 0, 10, 10]], [0.9], [0]), False),
        (prediction([], [], []), False),
    ],
)
def test_tolerance(other, passed):
    assert compare_predictions([BASE], [other], SIZE).passed is passed
    assert compare_predictions([other], [BASE], SIZE).passed is passed


def test_boxes_are_judged_at_640():
    other = prediction([[0, 0, 10, 10.08], [20, 20, 40, 40], [5, 5, 6, 6]], [0.9, 0.5, 0.1], [0, 1, 0])
    assert compare_predictions([BASE], [other], [(1280, 300)]).passed
    assert not compare_predictions([BASE], [other], SIZE).passed


def test_nothing_compared_is_no_pass():
    assert not compare_predictions([], [], []).passed
    ties = prediction([[0, 0, 10, 10], [20, 20, 40, 40]], [0.01, 0.01], [0, 0])
    assert not compare_predictions([ties], [ties], SIZE).passed
    said = str(compare_predictions([], [], [], Tolerance()))
    assert "FAILED: nothing was compared: there were no images" in said and "--images" in said
    said = str(compare_predictions([ties], [ties], SIZE))
    assert "FAILED: nothing was compared: on 1 images every detection scores like the last" in said and "train" in said
    said = str(Verification(["segmentation"]).report())
    assert "FAILED: nothing was compared: there were no images" in said and "--images" in said


SCORES = [0.9, 0.5, 0.3, 0.04, 0.001]
COUNT = len(SCORES)
BARE: list[Callable[[Prediction], Prediction]] = [
    lambda found: replace(found, masks=None),
    lambda found: replace(found, keypoints=None),
]


def full() -> Prediction:
    """Five objects of one class on 400 x 640, with discs as masks and three keypoints each; the last row is cut off."""
    boxes = [[40.4 + 110 * k, 60.4, 120.6 + 110 * k, 140.6] for k in range(COUNT)]
    base = prediction(boxes, SCORES, [0] * COUNT)
    y, x = np.mgrid[:400, :640] + 0.5
    middles = (base.boxes[:, :2] + base.boxes[:, 2:]) / 2
    masks = np.stack([(x - a) ** 2 + (y - b) ** 2 < 35**2 for a, b in middles])
    points = np.stack([np.array([[a, b, 0.9], [a - 9, b, 0.5], [a, b + 999, 0.01]]) for a, b in middles])
    return replace(base, masks=masks, keypoints=points.astype(np.float32))


def moved_masks(pixels: int, rows: list[int]) -> Callable[[Prediction], Prediction]:
    def change(found: Prediction) -> Prediction:
        masks = found.masks.copy()  # type: ignore[union-attr]
        masks[rows] = np.roll(masks[rows], pixels, axis=2)
        return replace(found, masks=masks)

    return change


def moved_points(by: float, axis: int, rows: list[int]) -> Callable[[Prediction], Prediction]:
    def change(found: Prediction) -> Prediction:
        points = found.keypoints.copy()  # type: ignore[union-attr]
        points[rows, 1, axis] += by
        return replace(found, keypoints=points)

    return change


def reordered(found: Prediction, order: list[int]) -> Prediction:
    assert found.masks is not None and found.keypoints is not None
    return replace(
        found,
        boxes=found.boxes[order],
        scores=found.scores[order],
        masks=found.masks[order],
        keypoints=found.keypoints[order],
    )


def compare(change: Callable[[Prediction], Prediction], base: Prediction | None = None) -> VerifyReport:
    """With a changed copy, whichever side it is on."""
    base = full() if base is None else base
    there = compare_predictions([base], [change(base)], [(400, 640)])
    back = compare_predictions([change(base)], [base], [(400, 640)])
    assert there == back
    return there


def test_equal_masks_and_keypoints_pass():
    report = compare(lambda found: found)
    assert report.passed and report.detections == COUNT - 1
    assert report.least_mask_iou == 1
    assert report.max_keypoint_error_px == report.max_keypoint_score_error == 0
    assert {"IoU", "keypoints"} <= set(str(report).split())
    boxes_only = compare_predictions([BASE], [BASE], SIZE)
    assert boxes_only.least_mask_iou is boxes_only.max_keypoint_error_px is boxes_only.max_keypoint_score_error is None
    assert json.loads(json.dumps(report.to_dict()))["least_mask_iou"] == 1


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        (moved_masks(1, [1]), False),
        (moved_masks(1, [3]), True),  # scores 0.04
        (moved_points(0.09, 0, [2]), True),
        (moved_points(0.11, 0, [2]), False),
        (moved_points(-0.11, 1, [2]), False),
        (moved_points(5, 1, [3, 4]), True),
        (moved_points(0.9e-4, 2, [0]), True),
        (moved_points(1.1e-4, 2, [0]), False),
        (lambda found: replace(found, boxes=found.boxes + np.array([0, 0, 0, 0.06], np.float32)), False),
        (
            lambda found: replace(found, scores=found.scores + np.array([0, 0, 0, 2e-4, 0], np.float32)),
            False,
        ),  # of every row
    ],
)
def test_masks_keypoints_and_every_box(change, passed):
    assert compare(change).passed is passed


def test_the_worst_is_reported():
    masks = full().masks
    assert masks is not None
    inside, step = int(masks[1].sum()), np.roll(masks[1], 3, axis=1)
    report = compare(moved_masks(3, [1]))
    both = int((masks[1] & step).sum())
    assert report.least_mask_iou == pytest.approx(both / (2 * inside - both))
    assert compare(moved_points(0.25, 0, [0])).max_keypoint_error_px == pytest.approx(0.25, abs=1e-4)
    assert compare(moved_points(0.02, 2, [0])).max_keypoint_score_error == pytest.approx(0.02, abs=1e-6)


def test_keypoints_are_judged_at_640():
    base, moved = full(), moved_points(0.15, 0, [0])(full())
    assert not compare_predictions([base], [moved], [(400, 640)]).passed
    assert compare_predictions([base], [moved], [(400, 1280)]).passed


def test_masks_of_low_scores_count_where_there_are_no_others():
    def low(found: Prediction) -> Prediction:
        return replace(found, scores=found.scores / 100)

    base = low(full())
    assert compare(lambda found: found, base).passed
    assert not compare(moved_masks(2, [0]), base).passed
    # another image with an object is enough for them not to count
    sizes = [(400, 640)] * 2
    assert compare_predictions([base, full()], [moved_masks(2, [0])(base), full()], sizes).passed
    assert not compare_predictions([base, full()], [base, moved_masks(2, [0])(full())], sizes).passed


def test_swapped_places_pass_and_ties_are_told_apart_by_masks_and_keypoints():
    order = [1, 0, 2, 3, 4]
    near = replace(full(), scores=np.array([0.50001, 0.5, 0.3, 0.04, 0.001], np.float32))
    assert compare(lambda found: reordered(found, order), near).passed
    # two objects in one box, with one score: their masks differ, or their keypoints
    boxes = near.boxes.copy()
    boxes[1] = boxes[0]
    tied = replace(near, boxes=boxes, scores=np.array([0.5, 0.5, 0.3, 0.04, 0.001], np.float32))
    assert compare(lambda found: reordered(found, order), tied).passed
    for bare in BARE:
        assert compare_predictions([bare(tied)], [bare(reordered(tied, order))], [(400, 640)]).passed
    assert not compare(moved_masks(1, [0]), tied).passed


def test_empty_masks_and_single_pixels():
    base = full()
    assert base.masks is not None
    masks = np.zeros_like(base.masks)
    empty = replace(base, masks=masks.copy())
    assert compare(lambda found: found, empty).least_mask_iou == 1
    masks[:, 100, 80] = True  # a tie of a logit with the threshold
    assert compare(lambda found: replace(found, masks=masks), empty).passed
    masks[:, 100, 81] = True
    report = compare(lambda found: replace(found, masks=masks), empty)
    assert not report.passed and report.least_mask_iou == 0
    strict = Tolerance(mask_pixels=0)
    masks[:, 100, 81] = False
    assert not compare_predictions([empty], [replace(empty, masks=masks)], [(400, 640)], strict).passed


def test_a_line_that_only_one_of_the_boxes_touches_is_no_difference():
    on = np.ones((2, 20, 20), np.float32)

    def cut(left: float) -> Prediction:
        base = prediction([[left, 10, 30, 40], [0, 0, 1, 1]], [0.9, 0.001], [0, 0])
        return replace(base, masks=masks_on_image(on, base.boxes, (1, 1), (80, 80)))

    ours, theirs = cut(10.001), cut(9.999)
    assert ours.masks is not None and theirs.masks is not None
    assert theirs.masks[0].sum() - ours.masks[0].sum() == 30
    assert compare_predictions([ours], [theirs], [(640, 640)]).least_mask_iou == 1
    holed = theirs.masks.copy()
    holed[0, 20:22, 20] = False
    report = compare_predictions([ours], [replace(theirs, masks=holed)], [(640, 640)])
    assert report.least_mask_iou == pytest.approx(1 - 2 / 600) and not report.passed


def test_one_side_without_masks_is_a_mistake():
    for field, bare in zip(("masks", "keypoints"), BARE):
        with pytest.raises(ValueError, match=f"{field}: got them of one side only"):
            compare_predictions([full()], [bare(full())], [(400, 640)])


def with_map(found: Prediction, wrong: int) -> Prediction:
    regions = np.zeros((400, 640), np.uint8)
    regions.ravel()[:wrong] = 1
    return replace(found, segmentation=regions, semantic_classes=("grass", "sky"))


def test_a_model_with_objects_and_a_label_map_has_a_report_of_both():
    outputs = ("boxes", "scores", "labels", "masks", "segmentation")
    for wrong, change, states in (
        (10, moved_masks(0, [0]), (True, True)),
        (100, moved_masks(0, [0]), (True, False)),
        (0, moved_masks(2, [0]), (False, True)),
    ):
        verification = Verification(outputs)
        for _ in range(2):
            verification.add(with_map(full(), 0), with_map(change(full()), wrong), (400, 640))
        report = verification.report()
        assert isinstance(report, JointReport)
        assert {name: part.passed for name, part in report.parts.items()} == dict(zip(("objects", "labels"), states))
        assert report.passed is all(states)
        said = json.loads(json.dumps(report.to_dict()))
        assert said["passed"] is report.passed and said["objects"]["images"] == said["labels"]["images"] == 2
        assert said["labels"]["agreement"] == pytest.approx(1 - wrong / 256000)
        assert "objects: verify" in str(report) and "labels: verify" in str(report)


def test_one_kind_of_output_has_its_own_report():
    base = with_map(full(), 0)
    for outputs, field in ((("boxes", "scores", "labels"), "detections"), (("logits",), "agreement")):
        verification = Verification(outputs)
        assert not verification.report().passed  # nothing was compared
        verification.add(base, base, (400, 640))
        assert verification.report().passed and field in verification.report().to_dict()


def test_a_floor_leaves_out_what_scores_no_more():
    """The row with the lowest score lies elsewhere on the other side."""
    base = full()
    lowest = int(base.scores.argmin())
    boxes = base.boxes.copy()
    boxes[lowest] += 100
    other = replace(base, boxes=boxes)
    for floor, passed in ((-1.0, False), (float(base.scores[lowest]), True)):
        comparison = ObjectComparison(cut=False, floor=floor)
        comparison.add(base, other, (640, 640))
        assert comparison.report().passed is passed


@pytest.mark.parametrize(("moved", "passed"), [(0.0, True), (0.05, True), (0.2, False)])
def test_a_row_for_each_given_box_is_compared(moved, passed):
    points = np.array([[[3, 4, 0.4], [6, 7, 0.5]]], np.float32)
    alone = prediction([[0, 0, 10, 10]], [0.4], [0])
    verification = Verification(["keypoints"])
    other = points + np.array([moved, 0, 0], np.float32)
    verification.add(replace(alone, keypoints=points), replace(alone, keypoints=other), (640, 640))
    report = verification.report()
    assert report.passed is passed and report.to_dict()["detections"] == 1


def test_outputs_that_cannot_be_compared_are_named():
    with pytest.raises(ValueError, match=r"outputs: got \['depth'\], expected boxes, keypoints"):
        Verification(["depth"])
