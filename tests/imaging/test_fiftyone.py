"""Predictions as labels of FiftyOne: by its documented fields, and with the package itself where it is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError

KINDS = ("Detection", "Detections", "Keypoint", "Keypoints", "Segmentation")
MASKS = np.zeros((2, 50, 100), bool)
MASKS[0, 12:20, 14:28] = True
PREDICTION = Prediction(
    "a.jpg",
    np.array([[10, 10, 30, 22.4], [50.6, 0, 100, 50]], np.float32),
    np.array([0.9, 0.25], np.float32),
    np.array([1, 0]),
    classes=("cat", "dog"),
    category_ids=(3, 7),
    size=(50, 100),
)


@pytest.fixture(params=["stand-in", "package"])
def labels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """FiftyOne, or a stand-in whose labels keep what they are given."""
    if request.param == "package":
        pytest.importorskip("fiftyone")
    else:
        module = ModuleType("fiftyone")
        vars(module).update(dict.fromkeys(KINDS, SimpleNamespace))
        monkeypatch.setitem(sys.modules, "fiftyone", module)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(UserError, match=r"fiftyone is not installed .*: pip install fiftyone"):
        PREDICTION.to_fiftyone()


@pytest.mark.usefixtures("labels")
def test_boxes_masks_and_tracks():
    fields = replace(PREDICTION, masks=MASKS, track_ids=np.array([4, -1])).to_fiftyone()
    assert list(fields) == ["detections"]
    first, second = fields["detections"].detections
    assert (first.label, second.label, first.index) == ("dog", "cat", 4)
    assert first.bounding_box == pytest.approx([0.1, 0.2, 0.2, 0.248], abs=1e-7)
    assert second.bounding_box == pytest.approx([0.506, 0, 0.494, 1], abs=1e-7)
    assert first.confidence == pytest.approx(0.9) and second.confidence == 0.25
    assert first.mask.dtype == bool and first.mask.shape == (12, 20) and first.mask.sum() == 8 * 14
    assert first.mask[2:10, 4:18].all() and second.mask.shape == (50, 49)


@pytest.mark.usefixtures("labels")
def test_masks_of_boxes_at_and_beyond_the_edge():
    boxes = np.array([[99.6, 49.6, 100, 50], [-8, -5, 12, 20]], np.float32)
    masks = np.zeros((2, 50, 100), bool)
    masks[0, 49, 99] = masks[1, :20, :12] = True
    first, second = replace(PREDICTION, boxes=boxes, masks=masks).to_fiftyone()["detections"].detections
    assert first.mask.tolist() == [[True]]
    assert second.mask.shape == (25, 20) and second.mask[5:, 8:].all() and second.mask.sum() == 240


@pytest.mark.usefixtures("labels")
def test_keypoints():
    points = np.array([[[10, 20, 0.5], [-5, 25, 1]], [[0, 0, 0], [100, 50, 0.125]]], np.float32)
    fields = replace(PREDICTION, keypoints=points).to_fiftyone()
    assert list(fields) == ["detections", "keypoints"]
    first, second = fields["keypoints"].keypoints
    np.testing.assert_allclose(first.points, [[0.1, 0.4], [-0.05, 0.5]], atol=1e-7)
    np.testing.assert_allclose(second.points, [[0, 0], [1, 1]], atol=1e-7)
    assert list(first.confidence) == [0.5, 1] and list(second.confidence) == [0, 0.125]
    assert (first.label, second.label) == ("dog", "cat")


@pytest.mark.usefixtures("labels")
def test_label_maps():
    values = np.arange(5000, dtype=np.uint8).reshape(50, 100) % 3
    alone = Prediction.of_labels("a.jpg", values, classes=("sea", "land", "ice"), category_ids=(0, 1, 2))
    assert list(alone.to_fiftyone()) == ["segmentation"]
    both = replace(PREDICTION, segmentation=values, semantic_classes=("sea", "land", "ice")).to_fiftyone()
    assert sorted(both) == ["detections", "segmentation"]
    np.testing.assert_array_equal(both["segmentation"].mask, values)


@pytest.mark.usefixtures("labels")
def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match=r"a: to_fiftyone: got no size of the image"):
        replace(PREDICTION, size=None).to_fiftyone()
