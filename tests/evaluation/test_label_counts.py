"""Confusion matrices of label maps."""

from __future__ import annotations

import numpy as np
import pytest

from efftasks.evaluation.label_counts import confusion_of


def test_by_hand() -> None:
    truth = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 1]], np.uint8)
    assert confusion_of(prediction, truth, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion_of(prediction, np.full_like(truth, 255), 3).sum() == 0


def test_random_maps_are_counted_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 150, (2, 60, 70))
    truth[random.random(truth.shape) < 0.1] = 200
    matrix = np.zeros((150, 150), np.int64)
    is_counted = truth != 200
    np.add.at(matrix, (truth[is_counted], prediction[is_counted]), 1)
    assert (confusion_of(prediction, truth, 150, ignore_index=200) == matrix).all()


def test_what_cannot_be_counted_is_refused() -> None:
    map_ = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"got shape \(2, 3\), expected that of the ground truth, \(3, 2\)"):
        confusion_of(map_, map_.T, 2)
    with pytest.raises(ValueError, match="labels: got up to 4, expected 0 to 1"):
        confusion_of(map_ + 4, map_, 2)
