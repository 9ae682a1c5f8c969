"""Predictions for the package supervision: its own checks pass, and its annotators draw."""

from __future__ import annotations

import sys
from dataclasses import replace

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


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    for call in (PREDICTION.to_supervision, replace(PREDICTION, keypoints=POINTS).to_supervision_keypoints):
        with pytest.raises(UserError, match=r"supervision is not installed .*: pip install supervision"):
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
    confidence = points.keypoint_confidence if "keypoint_confidence" in vars(points) else points.confidence
    np.testing.assert_array_equal(confidence, POINTS[..., 2])
    assert points.class_id.tolist() == [1, 0] and list(points["class_name"]) == ["dog", "cat"]
    drawn = sv.VertexAnnotator(radius=1).annotate(IMAGE.copy(), points)
    assert (drawn != IMAGE).any()
