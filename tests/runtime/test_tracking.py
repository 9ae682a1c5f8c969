"""Tracks of objects whose identities are known: no number changes, and no two objects share one."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.runtime.tracker_table import TRACKERS
from efftasks.runtime.tracking import Tracker, Trails, least_score
from efftasks.structures.errors import UserError

SIZE = (240, 320)
FRAMES = 40


def places(frame: int) -> np.ndarray:
    """Boxes of three objects that move apart, (3, 4): to the right, down, and to the upper left."""
    starts = np.array([[10, 20, 60, 70], [150, 10, 190, 60], [260, 180, 310, 230]], np.float32)
    steps = np.array([[4, 0], [0, 3], [-3, -1]], np.float32)
    return starts + np.tile(steps * frame, 2)


def predictions(scores: tuple[float, ...] = (0.9, 0.8, 0.7)) -> list[Prediction]:
    """The frames; which object comes first is different in each. Every eleventh misses one object."""
    random = np.random.default_rng(0)
    film = []
    for frame in range(FRAMES):
        order = random.permutation(3)[: 2 if frame % 11 == 10 else 3]
        film.append(
            Prediction(
                np.full((*SIZE, 3), 90, np.uint8),
                places(frame)[order] + random.normal(0, 0.7, (len(order), 4)).astype(np.float32),
                np.array(scores, np.float32)[order],
                order * 0,
                classes=("thing",),
                category_ids=(1,),
                frame=frame,
                size=SIZE,
            )
        )
    return film


def identities(prediction: Prediction) -> np.ndarray:
    """Which object each detection is, by its true place."""
    distance = np.abs(prediction.boxes[:, None] - places(prediction.frame or 0)).sum(-1)
    return distance.argmin(1)


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("fps", [30.0, None])
def test_no_switches(name, fps):
    pytest.importorskip("trackers")
    tracker = Tracker(name, 0.5, fps)
    numbers: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    tracked = 0
    for prediction in map(tracker, predictions()):
        assert prediction.track_ids is not None and len(prediction.track_ids) == len(prediction)
        for identity, number in zip(identities(prediction), prediction.track_ids.tolist()):
            if number >= 0:
                numbers[int(identity)].add(number)
                tracked += 1
    assert [len(tracks) for tracks in numbers.values()] == [1, 1, 1]  # no switch
    assert len(set.union(*numbers.values())) == 3 == tracker.count
    assert tracked >= 3 * FRAMES - 20  # a track begins after two or three frames


def test_detections_keep_what_belongs_to_them():
    pytest.importorskip("trackers")
    tracker = Tracker("bytetrack", 0.5)
    for prediction in predictions():
        owners = identities(prediction)
        points = np.zeros((len(prediction), 2, 3), np.float32) + owners[:, None, None]
        masks = np.zeros((len(prediction), *SIZE), bool)
        masks[np.arange(len(prediction)), owners] = True
        result = tracker(replace(prediction, masks=masks, keypoints=points))
        np.testing.assert_array_equal(result.boxes, prediction.boxes)
        assert result.keypoints is not None and result.masks is not None
        assert result.keypoints[:, 0, 0].tolist() == owners.tolist() == result.masks[:, :3, 0].argmax(1).tolist()


def test_low_scores_continue_a_track_and_are_left_out():
    pytest.importorskip("trackers")
    weak = [replace(frame, scores=np.where((frame.frame or 0) % 10 >= 4, frame.scores, 0.2)) for frame in predictions()]
    results = list(map(Tracker("bytetrack", 0.5), weak))
    assert all(len(result) == 0 for result in results if (result.frame or 0) % 10 < 4)
    numbers = {int(number) for result in results for number in result.track_ids if number >= 0}  # type: ignore[union-attr]
    assert len(numbers) == 3
    assert least_score("bytetrack", 0.5) == 0.1 and least_score("bytetrack", 0.05) == 0.05
    assert least_score("sort", 0.5) == 0.5


def test_trails_are_drawn_behind_objects_with_a_track():
    pytest.importorskip("trackers")
    tracker, trails = Tracker("sort", 0.5), Trails()
    for prediction in map(tracker, predictions()):
        plain = prediction.draw()
        picture = trails(plain.copy(), prediction)
        if prediction.frame == 0:
            assert (picture == plain).all()
    changed = (picture != plain).any(-1)
    # The first object went 120 pixels to the right at the height of 45.
    assert changed[43:48, 80:150].any(0).mean() > 0.9 and not changed[:, :30].any()


def test_refused(monkeypatch):
    with pytest.raises(UserError, match=r"tracker: got 'deepsort', expected one of bytetrack, sort"):
        Tracker("deepsort")
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(UserError, match=r"trackers is not installed .*: pip install 'efftasks\[track\]'"):
        Tracker("sort")


def test_label_maps_have_no_tracks():
    pytest.importorskip("trackers")
    labels = Prediction.of_labels("a.png", np.zeros((4, 4), np.uint8), classes=("sea",), category_ids=(0,))
    with pytest.raises(UserError, match="got a model that gives label maps alone"):
        Tracker("sort")(labels)
