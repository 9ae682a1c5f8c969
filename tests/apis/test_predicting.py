"""What a model sees comes back in pixels of the image, whatever its shape and scale."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


@pytest.fixture(scope="module")
def model(painted: ModuleType, root: Path) -> Any:
    return painted.detector(painted.config(root))


def check(painted: ModuleType, prediction: Prediction, scene: int, atol: float = 1e-3) -> None:
    """A prediction says what is painted."""
    (height, width), *boxes = painted.SCENES[scene]
    expected = [(name, box) for name, box in zip(painted.NAMES, boxes) if box is not None]
    shown = prediction.filter(0.5)
    assert [shown.classes[i] for i in shown.labels] == [name for name, _ in expected]
    np.testing.assert_allclose(shown.boxes, [box for _, box in expected], atol=atol)
    assert shown.keypoints is not None and shown.masks is not None
    np.testing.assert_allclose(shown.keypoints[..., :2], [np.reshape(box, (2, 2)) for _, box in expected], atol=atol)
    assert shown.masks.shape == (len(expected), height, width)
    for mask, (_, (x1, y1, x2, y2)) in zip(shown.masks, expected):
        inside = np.zeros((height, width), bool)
        inside[y1:y2, x1:x2] = True
        assert (mask != inside).sum() <= 2 * atol * (height + width) + 1e-3 * mask.size


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_boxes_keypoints_and_masks_are_in_pixels_of_each_image(painted, model, root, batch_size):
    found = apis.predict(model, root / "images", batch_size=batch_size)
    assert [prediction.stem for prediction in found] == ["0", "1", "2", "3"]
    for i, prediction in enumerate(found):
        check(painted, prediction, i)


def test_stretched_images_too(painted, root):
    """The first keeps its height and is half as wide again: both scales count."""
    cfg = painted.config(root)
    fit = next(x for x in cfg.test_dataloader.dataset.pipeline if x["type"] == "FitImage")
    fit.update(mode="stretch", size=(128, 144))
    model = painted.detector(cfg)
    for i, prediction in enumerate(apis.predict(model, root / "images")):
        check(painted, prediction, i, atol=1.0)  # scales are no longer whole: an edge may lie in a pixel


def test_arrays_paths_and_entries_are_the_same(painted, model, root):
    entries = apis.test_images(model.cfg)
    assert [entry["img_id"] for entry in entries] == [10, 11, 12, 13]
    paths = [entry["img_path"] for entry in entries]
    for images in (paths, [cv2.imread(path) for path in paths], entries):
        for i, prediction in enumerate(apis.predict(model, images)):
            check(painted, prediction, i)
    (alone,) = apis.predict(model, entries[1])
    check(painted, alone, 1)
    assert alone.image == paths[1] and alone.category_ids == (3, 7) and alone.keypoint_names == ("first", "last")


def test_a_stream_gives_the_same_one_after_another(painted, model, root, film):
    expected = apis.predict(model, root / "images", batch_size=2)
    found = list(apis.stream(model, root / "images", batch_size=2))
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.image == other.image and one.size == cv2.imread(str(one.image)).shape[:2]
    frames = list(apis.stream(model, film, batch_size=2))
    assert [(frame.frame, frame.stem) for frame in frames] == [(i, f"film_{i:06d}") for i in range(3)]


def test_a_stream_skips_what_cannot_be_read_on_request(model, root, tmp_path):
    images = [root / "images" / "0.png", tmp_path / "none.png", root / "images" / "1.png"]
    stream = apis.stream(model, images, batch_size=1)
    assert next(stream).stem == "0"
    with pytest.raises(UserError, match=r"none\.png"):
        next(stream)
    errors: list[UserError] = []
    assert [p.stem for p in apis.stream(model, images, batch_size=3, on_error=errors.append)] == ["0", "1"]
    assert len(errors) == 1


def test_scores_below_the_threshold_are_dropped(model, root):
    for threshold, counts in ((0.0, [2, 2, 2, 2]), (0.5, [2, 2, 1, 1]), (0.85, [1, 1, 0, 1]), (0.95, [0, 0, 0, 0])):
        found = apis.predict(model, root / "images", score_thr=threshold)
        assert [len(prediction) for prediction in found] == counts
        assert all({len(x) for x in (p.masks, p.keypoints, p.boxes) if x is not None} == {len(p)} for p in found)


def test_infer_gives_pixels_of_the_network_input(painted, model, root):
    found = apis.infer(model, root / "images" / "1.png")  # 30 x 48, twice as large, at the top left
    assert list(found) == ["images", "boxes", "scores", "labels", "masks", "keypoints"]
    assert found["images"].shape == (3, *painted.INPUT) and found["images"].dtype == np.float32
    np.testing.assert_allclose(found["boxes"], [[4, 6, 40, 22], [50, 28, 92, 58]])
    np.testing.assert_allclose(found["images"][:, 10, 10], [1, 0, 0])  # RGB: the cat is red
    np.testing.assert_allclose(found["images"][:, -1, -1], [114 / 255] * 3, rtol=1e-6)  # padding below
    assert found["masks"].shape == (2, 16, 24)
