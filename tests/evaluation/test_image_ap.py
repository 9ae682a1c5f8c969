"""The average precision of one image, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from efftasks.evaluation.image_ap import image_ap

A, B, FAR = (0, 0, 10, 10), (20, 20, 40, 40), (100, 100, 110, 110)


def ap(detections: list[tuple], objects: list[tuple]) -> float:
    """Of (box, score, label) and (box, label)."""
    boxes, scores, labels = zip(*detections) if detections else ((), (), ())
    true_boxes, true_labels = zip(*objects) if objects else ((), ())
    return image_ap(
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, float),
        np.array(labels, int),
        np.array(true_boxes, float).reshape(-1, 4),
        np.array(true_labels, int),
    )


@pytest.mark.parametrize(
    ("detections", "objects", "expected"),
    [
        ([(A, 0.9, 0), (B, 0.8, 0)], [(A, 0), (B, 0)], 1.0),
        ([(A, 0.9, 0)], [(A, 0), (B, 0)], 0.5),
        ([(A, 0.9, 1)], [(A, 0)], 0.0),  # another class
        ([], [(A, 0)], 0.0),
        ([(FAR, 0.9, 0), (A, 0.8, 0)], [(A, 0)], 0.5),  # a false one before: precision 1/2
        ([(A, 0.9, 0), (FAR, 0.8, 0)], [(A, 0)], 1.0),  # behind: all is recalled
        ([(A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0)], [(A, 0), (B, 0)], (1 + 2 / 3) / 2),  # a duplicate is false
        ([((0, 0, 10, 7.2), 0.9, 0)], [(A, 0)], 0.5),  # an IoU of 0.72 counts at 5 of 10 thresholds
        ([(A, 0.9, 0), (B, 0.3, 1)], [(A, 0), (B, 1), (FAR, 1)], 0.75),  # the mean over classes
        ([], [], 1.0),
        ([(A, 0.4, 0)], [], 1.0),
        ([(A, 0.6, 0)], [], 0.0),
    ],
)
def test_by_hand(detections: list[tuple], objects: list[tuple], expected: float) -> None:
    assert ap(detections, objects) == pytest.approx(expected)
