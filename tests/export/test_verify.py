import numpy as np
import pytest

from efftasks.export.verify import Tolerance, compare_predictions
from efftasks.structures.prediction import Prediction


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
    assert "FAILED" in str(compare_predictions([], [], [], Tolerance()))
