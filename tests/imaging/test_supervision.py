"""Predictions for the package supervision: its own checks pass, and its annotators draw."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError

IMAGE = np.full((40, 60, 3), 100, np.uint8)
PREDICTION = Prediction(
    IMAGE,
    np.array([[1, 2, 11.5, 22.25], [30, 0, 55, 35]], np.float32),
    np.array([0.9, 0.25], np.float32),
    np.array([1, 0]),
    classes=("cat", "dog"),
    category_ids=(3, 7),
)
POINTS = np.array([[[1, 2, 0.5], [3, 4, 1]], [[0, 0, 0], [-1, 7, 0.125]]], np.float32)


FIELDS = ("boxes", "scores", "labels", "masks", "keypoints", "track_ids")


def detections_like(**changes):
    """What ``from_supervision`` reads of ``sv.Detections``."""
    values = dict(xyxy=[[0, 0, 5, 5], [1, 2, 9, 9.5]], mask=None, confidence=None, class_id=[1, 0], tracker_id=None)
    return SimpleNamespace(**{**values, **changes})


def test_back_from_detections():
    prediction = Prediction.from_supervision(
        detections_like(confidence=[0.25, 0.75], tracker_id=[7, -1]), IMAGE, ["cat", "dog"]
    )
    assert prediction.boxes.tolist() == [[1, 2, 9, 9.5], [0, 0, 5, 5]] and prediction.boxes.dtype == np.float32
    assert prediction.scores.tolist() == [0.75, 0.25] and prediction.labels.tolist() == [0, 1]
    assert prediction.track_ids is not None and prediction.track_ids.tolist() == [-1, 7]
    assert prediction.category_ids == (0, 1) and prediction.size == (40, 60) and prediction.masks is None
    unsure = Prediction.from_supervision(detections_like(), "a.jpg", ["cat", "dog"], category_ids=(3, 7), name="b")
    assert unsure.scores.tolist() == [1, 1] and unsure.category_ids == (3, 7)
    assert unsure.size is None and unsure.stem == "b"


@pytest.mark.parametrize(
    ("changes", "key_points", "problem"),
    [
        (dict(class_id=None), None, "got detections without class_id"),
        (dict(class_id=[0, 2]), None, "got class_id 2, expected 0 to 1"),
        (dict(class_id=[-1, 0]), None, "got class_id -1"),
        ({}, SimpleNamespace(xy=np.zeros((3, 4, 2))), "got key_points of 3 objects, expected 2"),
    ],
)
def test_detections_that_are_none_of_the_classes(changes, key_points, problem):
    with pytest.raises(UserError, match=problem):
        Prediction.from_supervision(detections_like(**changes), IMAGE, ["cat", "dog"], key_points)


def test_there_and_back():
    pytest.importorskip("supervision")
    masks = np.zeros((2, 40, 60), bool)
    masks[1, 0:35, 30:55] = True
    complete = replace(PREDICTION, masks=masks, keypoints=POINTS, track_ids=np.array([4, -1]), size=(40, 60))
    names = dict(category_ids=(3, 7), keypoint_names=("nose", "tail"))
    for prediction in (complete, replace(complete, masks=None, track_ids=None), complete.filter(0.95)):
        again = Prediction.from_supervision(
            prediction.to_supervision(), IMAGE, PREDICTION.classes, prediction.to_supervision_keypoints(), **names
        )
        for field in FIELDS:
            value = getattr(prediction, field)
            if value is None:
                assert getattr(again, field) is None
            else:
                np.testing.assert_array_equal(getattr(again, field), value, err_msg=field)
                assert getattr(again, field).dtype == value.dtype
        assert again.category_ids == (3, 7) and again.size == (40, 60)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    for call in (PREDICTION.to_supervision, replace(PREDICTION, keypoints=POINTS).to_supervision_keypoints):
        with pytest.raises(UserError, match=r"supervision is not installed .*: pip install 'efftasks\[supervision\]'"):
            call()


def test_detections_without_keypoints_have_none():
    with pytest.raises(UserError, match="without keypoints, expected that of a pose estimator"):
        PREDICTION.to_supervision_keypoints()


def test_detections():
    sv = pytest.importorskip("supervision")
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 2:22, 1:11] = True
    for prediction in (PREDICTION, replace(PREDICTION, masks=masks)):
        detections = prediction.to_supervision()
        assert isinstance(detections, sv.Detections) and len(detections) == 2
        np.testing.assert_array_equal(detections.xyxy, PREDICTION.boxes)
        np.testing.assert_array_equal(detections.confidence, PREDICTION.scores)
        assert detections.class_id.tolist() == [1, 0] and list(detections["class_name"]) == ["dog", "cat"]
    np.testing.assert_array_equal(detections.mask, masks)
    assert detections[detections.class_id == 1].xyxy.tolist() == [[1, 2, 11.5, 22.25]]
    drawn = sv.BoxAnnotator().annotate(IMAGE.copy(), detections)
    drawn = sv.MaskAnnotator().annotate(drawn, detections)
    assert (drawn != IMAGE).any() and (drawn[38:] == IMAGE[38:]).all()


def test_without_objects():
    sv = pytest.importorskip("supervision")
    none = PREDICTION.filter(1.0)
    assert len(none.to_supervision()) == 0
    merged = sv.Detections.merge([none.to_supervision(), PREDICTION.to_supervision()])
    assert list(merged["class_name"]) == ["dog", "cat"]
    assert len(replace(none, keypoints=POINTS[:0]).to_supervision_keypoints().xy) == 0


def test_keypoints():
    sv = pytest.importorskip("supervision")
    points = replace(PREDICTION, keypoints=POINTS).to_supervision_keypoints()
    assert isinstance(points, sv.KeyPoints)
    np.testing.assert_array_equal(points.xy, POINTS[..., :2])
    np.testing.assert_array_equal(points.keypoint_confidence, POINTS[..., 2])
    assert points.class_id.tolist() == [1, 0] and list(points["class_name"]) == ["dog", "cat"]
    drawn = sv.VertexAnnotator(radius=1).annotate(IMAGE.copy(), points)
    assert (drawn != IMAGE).any()
