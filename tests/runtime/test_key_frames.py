"""Key frames: when the network runs, and where objects are in between, on sequences whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.runtime import sources
from efftasks.runtime.key_frames import FrameSequence, KeyFramePredictor, KeyFrameSettings
from efftasks.runtime.video import Frame
from efftasks.structures.errors import UserError

SIZE = (240, 320)
BOX = (100.0, 80.0, 160.0, 130.0)


def texture(seed: int = 0, side: int = 900) -> np.ndarray:
    """Noise of many scales, as photographs have: uint8 (side, side, 3)."""
    random = np.random.default_rng(seed)
    picture = np.zeros((side, side, 3), np.float32)
    for cells in (6, 15, 40, 100, 250):
        layer = random.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC) / cells**0.4
    picture = 128 + 35 * picture / picture.std()
    return picture.clip(0, 255).astype(np.uint8)


def view(picture: np.ndarray, matrix: np.ndarray, seed: int = 0, noise: float = 2.0) -> np.ndarray:
    """A frame: the picture moved by (2, 3), with noise."""
    height, width = SIZE
    moved = cv2.warpAffine(picture, np.asarray(matrix, float), (width, height), flags=cv2.INTER_LINEAR).astype(
        np.float32
    )
    moved += np.random.default_rng(seed).normal(0, noise, moved.shape)
    return moved.clip(0, 255).astype(np.uint8)


def pans(picture: np.ndarray, step: tuple[float, float], count: int) -> list[np.ndarray]:
    """Frames in which everything moves by ``step`` pixels a frame."""
    return [view(picture, np.array([[1, 0, i * step[0] - 250], [0, 1, i * step[1] - 250]]), i) for i in range(count)]


def stills(picture: np.ndarray, count: int) -> list[np.ndarray]:
    return pans(picture, (0, 0), count)


class Detector:
    """Gives the same objects for each image, and counts its calls."""

    def __init__(self, boxes: Any = (BOX,), **parts: Any) -> None:
        self.calls = 0
        self._boxes, self._parts = np.array(boxes, np.float32).reshape(-1, 4), parts

    def __call__(self, pixels: np.ndarray) -> list[Prediction]:
        self.calls += 1
        count = len(self._boxes)
        scores, labels = np.linspace(0.9, 0.5, count, dtype=np.float32), np.zeros(count, np.int64)
        size = (pixels.shape[0], pixels.shape[1])
        return [Prediction(pixels, self._boxes, scores, labels, ("disc",), (1,), size=size, **self._parts)]


def predict(frames: list[np.ndarray], detector: Detector | None = None, **settings: Any) -> list[Prediction]:
    return KeyFramePredictor(detector or Detector(), KeyFrameSettings(**settings))(frames)


def key_frames(predictions: list[Prediction]) -> list[int]:
    return [i for i, prediction in enumerate(predictions) if prediction.carried_from is None]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return texture()


@pytest.mark.parametrize("step", [(0.0, 0.0), (0.7, -0.3), (-3.0, 2.0), (7.3, 5.1)])
def test_boxes_follow_a_pan(picture, step):
    for i, prediction in enumerate(predict(pans(picture, step, 6), every=6)):
        assert prediction.carried_from == (0 if i else None)
        truth = np.array(BOX) + i * np.tile(step, 2)
        np.testing.assert_allclose(prediction.boxes[0], truth, atol=0.5)


@pytest.mark.parametrize(("scale", "turn"), [(1.02, 0.0), (0.98, 0.0), (1.01, 0.8)])
def test_boxes_follow_a_zoom_and_a_turn(picture, scale, turn):
    start = np.array([[1, 0, -250], [0, 1, -250], [0, 0, 1]])
    frames = []
    for i in range(5):
        camera = cv2.getRotationMatrix2D((150.0, 110.0), i * turn, scale**i)
        frames.append(view(picture, camera @ start, i))
    center = np.array([130, 105.0])
    for i, prediction in enumerate(predict(frames, every=5)):
        camera = cv2.getRotationMatrix2D((150.0, 110.0), i * turn, scale**i)
        moved, half = camera[:, :2] @ center + camera[:, 2], np.array([30, 25]) * scale**i
        np.testing.assert_allclose(prediction.boxes[0], [*(moved - half), *(moved + half)], atol=0.6)


def paste(frame: np.ndarray, box: tuple[float, ...], seed: int = 7) -> np.ndarray:
    x1, y1, x2, y2 = map(round, box)
    frame = frame.copy()
    frame[y1:y2, x1:x2] = texture(seed, 200)[: y2 - y1, : x2 - x1]
    return frame


def test_a_box_follows_its_object_and_others_stay(picture):
    other = (220.0, 40.0, 280.0, 90.0)
    step = np.array([2.5, 1.5])
    places = [np.array(BOX) + i * np.tile(step, 2) for i in range(6)]
    frames = [paste(frame, place.round()) for frame, place in zip(stills(picture, 6), places)]
    for place, prediction in zip(places, predict(frames, Detector((BOX, other)), every=6)):
        np.testing.assert_allclose(prediction.boxes[0], place.round(), atol=0.7)
        np.testing.assert_allclose(prediction.boxes[1], other, atol=0.3)


def test_a_still_video_runs_the_network_once_in_max_interval(picture):
    detector = Detector()
    predictions = predict(stills(picture, 30), detector, max_interval=10)
    assert key_frames(predictions) == [0, 10, 20]
    assert detector.calls == 3
    assert [prediction.carried_from for prediction in predictions[8:12]] == [0, 0, None, 10]
    for prediction in predictions:  # boxes do not tremble
        np.testing.assert_array_equal(prediction.boxes[0], np.array(BOX, np.float32))


@pytest.mark.parametrize("interval", [2, 3, 7])
def test_a_key_frame_is_never_older_than_the_bound(picture, interval):
    frames = pans(picture, (1.5, 0), 20)
    predictions = predict(frames, max_interval=interval, threshold=1e6)
    ages = [i - (i if p.carried_from is None else p.carried_from) for i, p in enumerate(predictions)]
    assert max(ages) <= interval - 1
    assert key_frames(predict(frames, every=interval)) == list(range(0, 20, interval))


def test_an_object_that_appears_is_a_key_frame(picture):
    frames = stills(picture, 16)
    for i in range(5, 16):
        frames[i] = paste(frames[i], (220, 150, 244, 174))
    assert key_frames(predict(frames, max_interval=100)) == [0, 5]


def test_an_object_that_appears_while_the_camera_pans(picture):
    frames = pans(picture, (0.4, 0), 12)
    frames[3:] = [paste(frame, (220 + 0.4 * i, 150, 244 + 0.4 * i, 174)) for i, frame in enumerate(frames[3:], 3)]
    assert 3 in key_frames(predict(frames, max_interval=100))


def test_what_the_camera_uncovers_is_looked_at_in_time(picture):
    keys = key_frames(predict(pans(picture, (-4, 0), 13), max_interval=100))
    assert keys == [0, 3, 6, 9, 12]


def test_a_cut_is_a_key_frame(picture):
    frames = stills(picture, 4) + stills(texture(3), 4)
    assert key_frames(predict(frames, max_interval=100)) == [0, 4]


def test_a_new_size_is_a_key_frame(picture):
    frames = stills(picture, 2) + [frame[:200] for frame in stills(picture, 2)]
    predictions = predict(frames, max_interval=100)
    assert key_frames(predictions) == [0, 2]
    assert [prediction.size for prediction in predictions] == [SIZE, SIZE, (200, 320), (200, 320)]


def test_exposure_and_noise_are_no_change(picture):
    frames = [
        (frame * gain + shift).clip(0, 255).astype(np.uint8)
        for frame, gain, shift in zip(stills(picture, 8), np.linspace(1, 0.8, 8), np.linspace(0, 12, 8))
    ]
    assert key_frames(predict(frames, max_interval=100)) == [0]


@pytest.mark.parametrize("level", [0, 120, 255])
def test_without_texture_there_is_nothing_to_follow(level):
    random = np.random.default_rng(0)
    frames = [(np.full((*SIZE, 3), level) + random.normal(0, 3, (*SIZE, 3))).clip(0, 255) for _ in range(8)]
    frames = [frame.astype(np.uint8) for frame in frames]
    assert key_frames(predict(frames, max_interval=100)) == [0]
    frames[4] = cv2.circle(frames[4], (200, 100), 20, (60, 60, 60) if level else (200, 200, 200), -1)
    assert 4 in key_frames(predict(frames, max_interval=100))


def test_a_higher_threshold_gives_fewer_key_frames(picture):
    frames = stills(picture, 24)
    for i in range(4, 24):  # ever more contrast
        frames[i][150:180, 200:230] = np.clip(frames[i][150:180, 200:230].astype(int) + 5 * i, 0, 255)
    counts = [len(key_frames(predict(frames, max_interval=100, threshold=t))) for t in (0.1, 0.3, 1.0, 1e6)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] and counts[-1] == 1


def test_objects_that_leave_are_clipped_and_dropped(picture):
    boxes = [(10, 80, 60, 130), (100, 80, 160, 130)]
    predictions = predict(pans(picture, (-10, 0), 7), Detector(boxes), every=7)
    assert [len(prediction) for prediction in predictions] == [2, 2, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(predictions[3].boxes[0], [0, 80, 30, 130], atol=0.5)
    np.testing.assert_allclose(predictions[6].boxes[0], [40, 80, 100, 130], atol=0.5)
    np.testing.assert_allclose(predictions[6].scores, [0.5])


def test_an_object_cut_off_by_the_border_still_reaches_it(picture):
    predictions = predict(pans(picture, (4, 0), 4), Detector([(0, 80, 40, 130), (20, 80, 60, 130)]), every=4)
    np.testing.assert_allclose(predictions[3].boxes, [[0, 80, 52, 130], [32, 80, 72, 130]], atol=0.5)


def test_masks_and_keypoints_are_carried(picture):
    masks = np.zeros((1, *SIZE), bool)
    cv2.ellipse(masks[0].view(np.uint8), (130, 105), (29, 24), 0, 0, 360, 1, -1)
    points = np.array([[[110, 90, 0.8], [150, 120, 0.4]]], np.float32)
    predictions = predict(pans(picture, (3, -2), 5), Detector(masks=masks, keypoints=points), every=5)
    for i, prediction in enumerate(predictions):
        assert prediction.masks is not None and prediction.keypoints is not None
        truth = np.roll(masks[0], (-2 * i, 3 * i), (0, 1))
        assert prediction.masks.dtype == bool
        assert (prediction.masks[0] & truth).sum() / (prediction.masks[0] | truth).sum() > 0.97
        np.testing.assert_allclose(prediction.keypoints[0], points[0] + [3 * i, -2 * i, 0], atol=0.5)


def test_masks_grow_with_a_zoom_and_are_cut_at_the_border(picture):
    start = np.array([[1, 0, -250], [0, 1, -250], [0, 0, 1]])
    masks = np.zeros((1, *SIZE), bool)
    masks[0, 80:130, 270:320] = True
    camera = np.array([[1.1, 0, 10], [0, 1.1, -12]])
    frames = [view(picture, start[:2]), view(picture, camera @ start)]
    prediction = predict(frames, Detector([(270, 80, 320, 130)], masks=masks), every=2)[1]
    assert prediction.masks is not None
    rows, columns = np.flatnonzero(prediction.masks[0].any(1)), np.flatnonzero(prediction.masks[0].any(0))
    np.testing.assert_allclose([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], [76, 131, 307, 320], atol=1)


def test_label_maps_are_refused(picture):
    labels = np.zeros(SIZE, np.uint8)
    with pytest.raises(UserError, match="label maps"):
        predict(stills(picture, 2), Detector(segmentation=labels))


def test_no_objects_at_all(picture):
    predictions = predict(pans(picture, (1, 0), 4), Detector(np.zeros((0, 4))), every=4)
    assert [len(prediction) for prediction in predictions] == [0] * 4


def test_a_key_frame_on_each_frame_is_the_detector_itself(picture):
    frames = pans(picture, (2, 0), 5)
    for settings in (dict(max_interval=1), dict(every=1)):
        detector = Detector()
        predictions = predict(frames, detector, **settings)
        assert detector.calls == 5 and key_frames(predictions) == list(range(5))
        for frame, prediction in zip(frames, predictions):
            assert prediction.image is frame


def test_the_same_video_gives_the_same_predictions(picture):
    frames = pans(picture, (2.2, 1.1), 12)
    first, second = predict(frames), predict(frames)
    assert [p.carried_from for p in first] == [p.carried_from for p in second]
    assert any(p.carried_from is not None for p in first)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_each_source_starts_with_a_key_frame(picture):
    detector = Detector()
    predictor = KeyFramePredictor(detector)
    for _ in range(2):
        assert key_frames(list(predictor.stream(iter(stills(picture, 3))))) == [0]
    assert detector.calls == 2


class Camera:
    """Frames of which some were dropped."""

    name, place, count, fps, live = "camera0", "0", None, 25.0, True

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames
        self.closed = False

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def close(self) -> None:
        self.closed = True


def test_dropped_frames_of_a_camera_count_for_the_bound(picture, monkeypatch):
    numbers = [0, 1, 4, 9, 10, 19, 20, 21]
    camera = Camera([Frame(number, frame) for number, frame in zip(numbers, stills(picture, 8))])
    monkeypatch.setattr(sources, "Video", lambda source: camera)
    predictions = list(KeyFramePredictor(Detector(), KeyFrameSettings(max_interval=9)).stream(0, keep_pixels=True))
    assert [prediction.frame for prediction in predictions] == numbers
    assert [prediction.carried_from for prediction in predictions] == [None, 0, 0, None, 9, None, 19, 19]
    assert predictions[2].name == "camera0_000004" and predictions[2].pixels is not None
    assert camera.closed


@pytest.fixture
def folder(picture: np.ndarray, tmp_path: Path) -> Path:
    for i, frame in enumerate(stills(picture, 5)):
        cv2.imwrite(str(tmp_path / f"frame_{i:02d}.png"), frame)
    return tmp_path


def test_a_folder_of_frames(folder):
    predictions = KeyFramePredictor(Detector())(folder)
    assert [prediction.carried_from for prediction in predictions] == [None, 0, 0, 0, 0]
    assert [Path(str(prediction.image)).name for prediction in predictions] == [f"frame_{i:02d}.png" for i in range(5)]
    assert predictions[1].name == "frame_01" and predictions[1].pixels is None


def test_a_broken_frame_is_skipped_or_raised(folder):
    (folder / "frame_02.png").write_bytes(b"no image")
    skipped: list[UserError] = []
    predictions = KeyFramePredictor(Detector())(folder, on_error=skipped.append)
    assert [prediction.name for prediction in predictions] == ["frame_00", "frame_01", "frame_03", "frame_04"]
    assert len(skipped) == 1 and "frame_02.png" in str(skipped[0])
    with pytest.raises(UserError, match=r"frame_02\.png"):
        KeyFramePredictor(Detector())(folder)


@pytest.mark.parametrize(("name", "problem"), [("frame_3", "number 3 after 4"), ("photo", "no number")])
def test_images_that_are_no_sequence(folder, name, problem):
    (folder / f"{name}.png").write_bytes((folder / "frame_00.png").read_bytes())
    with pytest.raises(UserError, match=problem):
        KeyFramePredictor(Detector())(folder)


def test_one_image_is_no_sequence(folder):
    with pytest.raises(UserError, match="one image"):
        KeyFramePredictor(Detector())(folder / "frame_00.png")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [(dict(threshold=-1.0), "threshold"), (dict(max_interval=0), "max_interval"), (dict(every=0), "every")],
)
def test_settings_out_of_range(settings, problem):
    with pytest.raises(UserError, match=problem):
        KeyFrameSettings(**settings)


def test_only_one_frame_at_a_time(picture):
    predictor = KeyFramePredictor(Detector())
    with pytest.raises(UserError, match="batch_size"):
        predictor.stream(stills(picture, 2), batch_size=2)
    with pytest.raises(UserError, match="readers"):
        predictor.stream(stills(picture, 2), readers=0)


def test_what_a_network_says_of_its_exit_is_not_carried(picture):
    def detect(pixels: np.ndarray) -> list[Prediction]:
        return [replace(Detector()(pixels)[0], exit_score=0.7, exited=True)]

    sequence = FrameSequence(detect, KeyFrameSettings())
    first, second = (sequence.predict(frame, i) for i, frame in enumerate(stills(picture, 2)))
    assert first.exited and second.exited is None and second.exit_score is None
