"""Key frames with a network in a file, and on a made video of real photographs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from efftasks import Predictor
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.key_frames import FrameSequence, KeyFramePredictor, KeyFrameSettings

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def predictor(module_at: Callable[[Path], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A network whose boxes and masks depend on the picture."""
    write_model = module_at(TESTS / "runtime" / "test_stream.py").write_model
    return Predictor(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video of 8 frames of noise: every frame is another picture."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    random = np.random.default_rng(0)
    for _ in range(8):
        writer.write(np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)))
    writer.release()
    return path


def assert_same(one: Prediction, other: Prediction) -> None:
    assert (one.name, one.frame, one.size, one.classes) == (other.name, other.frame, other.size, other.classes)
    for name in ("image", "boxes", "scores", "labels", "masks", "pixels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@pytest.mark.parametrize("settings", [KeyFrameSettings(max_interval=1), KeyFrameSettings(every=1), None])
def test_a_key_frame_on_each_frame_is_the_stream_itself(predictor, film, settings):
    expected = list(predictor.stream(film, keep_pixels=True))
    predictions = list(KeyFramePredictor(predictor, settings).stream(film, keep_pixels=True))
    assert len(predictions) == len(expected) == 8
    for one, other in zip(predictions, expected):
        assert one.carried_from is None
        assert_same(one, other)


def test_images_of_a_folder_are_those_of_the_stream(predictor, film, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for prediction in predictor.stream(film, keep_pixels=True):
        cv2.imwrite(str(folder / f"{prediction.frame:03d}.png"), prediction.pixels)
    for one, other in zip(KeyFramePredictor(predictor)(folder), predictor.stream(folder), strict=True):
        assert_same(one, other)


@pytest.mark.slow
def test_a_moving_camera_over_real_photographs(module_at, real_data):
    """With a detector that knows the truth, what is lost is lost by the key frames: AP, and new objects."""
    moving_camera, speed = (module_at(TESTS / f"{name}.py") for name in ("moving_camera", "key_frames_speed"))
    photos = moving_camera.read_photos(real_data / "bccd", "test")
    frames = list(moving_camera.MovingCamera(photos, seed=7, frames=240))

    def truth(number: int) -> Prediction:
        seen = frames[number].objects
        boxes = np.array([each.box for each in seen], np.float32).reshape(-1, 4)
        labels = np.array([each.category - 1 for each in seen], np.int64)
        scores = np.linspace(0.9, 0.8, len(seen), dtype=np.float32)
        return Prediction(frames[number].pixels, boxes, scores, labels, ("a", "b", "c"), (1, 2, 3), size=(480, 640))

    number = 0
    sequence = FrameSequence(lambda pixels: [truth(number)], KeyFrameSettings())
    predictions = []
    for number, frame in enumerate(frames):
        predictions.append(sequence.predict(frame.pixels, number))
    keys = np.mean([prediction.carried_from is None for prediction in predictions])
    reference = [truth(i) for i in range(len(frames))]
    late = speed.lateness(frames, reference, predictions)
    assert speed.average_precision(frames, reference) == pytest.approx(1)
    assert speed.average_precision(frames, predictions) > 0.98
    assert keys < 0.4
    assert len(late) > 10 and np.mean(np.asarray(late) <= 3) >= 0.95


def test_a_made_video_is_the_same_each_time_and_its_boxes_move_with_the_camera(module_at):
    moving_camera = module_at(TESTS / "moving_camera.py")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    photo = moving_camera.Photo(pixels, np.array([[40.0, 30, 60, 50]]), np.array([1]))
    first, second = (
        list(moving_camera.MovingCamera([photo] * 12, 3, 12, "slow", size=(96, 128), paste_every=4)) for _ in range(2)
    )
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    boxes = [{seen.track: seen.box for seen in frame.objects if not seen.ignored} for frame in first]
    moved = [np.abs(b[t] - a[t]).max() for a, b in pairwise(boxes) for t in a.keys() & b.keys() if t < 12]
    assert moved and 0.5 < np.median(moved) < 2  # a pixel a frame, times the zoom
