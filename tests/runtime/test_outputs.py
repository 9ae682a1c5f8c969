"""Files of predictions, written as the run goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.runtime.outputs import CocoWriter, CsvWriter, LabelWriter
from efftasks.runtime.pictures import DEFAULT_FPS, FreeStems, PictureWriter, VideoWriter
from efftasks.runtime.video import Video

PREDICTION = Prediction(
    np.full((40, 60, 3), 100, np.uint8),
    np.array([[1, 2, 11.5, 22.25], [0, 0, 5, 5]], np.float32),
    np.array([0.9, 0.25], np.float32),
    np.array([1, 0]),
    classes=("cat", 'do"g, small'),
    category_ids=(3, 7),
    size=(40, 60),
)
POSE = replace(
    PREDICTION,
    keypoints=np.array([[[1, 2, 0.5], [3.12345, 4, 1]], [[0, 0, 0], [-1, 7, 0.125]]], np.float32),
    keypoint_names=("nose", "tail"),
    skeleton=((0, 1),),
)


def test_coco_results_equal_those_written_at_once(tmp_path):
    writer = CocoWriter(tmp_path / "predictions.json")
    labels = np.zeros((40, 60), np.uint8)
    predictions = [
        POSE,
        POSE.filter(0.95),
        replace(POSE, frame=7, name="film_000007", segmentation=labels, semantic_classes=("sea", "land")),
    ]
    for i, prediction in enumerate(predictions):
        writer.add(f"{i}.jpg", prediction)
    assert list(tmp_path.glob("*.json")) == []  # not before it is complete
    writer.close()
    points = {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    expected = {
        "images": [
            {"id": 1, "file_name": "0.jpg", "height": 40, "width": 60},
            {"id": 2, "file_name": "1.jpg", "height": 40, "width": 60},
            {
                "id": 3,
                "file_name": "2.jpg",
                "height": 40,
                "width": 60,
                "frame": 7,
                "segmentation": "labels/film_000007.png",
            },
        ],
        "categories": [{"id": 3, "name": "cat", **points}, {"id": 7, "name": 'do"g, small', **points}],
        "annotations": POSE.to_coco(1) + POSE.to_coco(3),
        "semantic_classes": ["sea", "land"],
    }
    assert (tmp_path / "predictions.json").read_text() == json.dumps(expected) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


@pytest.mark.parametrize("kind", [CocoWriter, CsvWriter])
def test_without_predictions_an_old_file_stays(kind, tmp_path):
    (tmp_path / "old").write_text("of the run before")
    kind(tmp_path / "old").close()
    assert (tmp_path / "old").read_text() == "of the run before"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_csv_has_a_row_for_each_object(tmp_path):
    writer = CsvWriter(tmp_path / "a.csv")
    writer.add("photos/ä, b.jpg", PREDICTION)
    writer.add("empty.jpg", PREDICTION.filter(0.95))
    writer.close()
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        dict(zip(("file", "frame", "class", "score", "x1", "y1", "x2", "y2"), row))
        for row in (
            ("photos/ä, b.jpg", "", 'do"g, small', "0.9", "1.0", "2.0", "11.5", "22.25"),
            ("photos/ä, b.jpg", "", "cat", "0.25", "0.0", "0.0", "5.0", "5.0"),
        )
    ]


@pytest.mark.parametrize("names", [("nose", "tail"), ()])
def test_csv_of_keypoints_of_a_video(tmp_path, names):
    writer = CsvWriter(tmp_path / "a.csv", "film.mp4")
    writer.add("film_000003.jpg", replace(POSE, frame=3, keypoint_names=names))
    writer.close()
    header, first, second = (tmp_path / "a.csv").read_text().splitlines()
    columns = [f"{name}_{part}" for name in names or ("keypoint_0", "keypoint_1") for part in ("x", "y", "score")]
    assert header.split(",")[8:] == columns
    assert first.startswith("film.mp4,3,") and first.endswith(",1.0,2.0,0.5,3.123,4.0,1.0")
    assert second == "film.mp4,3,cat,0.25,0.0,0.0,5.0,5.0,0.0,0.0,0.0,-1.0,7.0,0.125"


def test_tracks_are_in_csv_and_coco_results(tmp_path):
    writer = CsvWriter(tmp_path / "a.csv", "film.mp4", has_carried=True)
    tracked = replace(PREDICTION, frame=3, track_ids=np.array([12, -1]))
    writer.add("film_000003.jpg", tracked)
    writer.close()
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["track_id"], row["carried_from"]) for row in csv.DictReader(file)] == [("12", ""), ("", "")]
    assert [row.get("track_id") for row in tracked.to_coco()] == [12, None]
    assert [row.get("track_id") for row in tracked.filter(0.5).to_coco()] == [12]


def test_label_maps_have_files_of_their_own(tmp_path):
    writer = LabelWriter(tmp_path)
    writer.add("a.jpg", PREDICTION)
    assert list(tmp_path.iterdir()) == []
    labels = np.arange(2400, dtype=np.uint8).reshape(40, 60) % 2
    writer.add("a.jpg", replace(PREDICTION, segmentation=labels, name="a_1"))
    read = cv2.imread(str(tmp_path / "labels" / "a_1.png"))  # its colors
    assert len(np.unique(read.reshape(-1, 3), axis=0)) == 2


def test_stems_are_free(tmp_path):
    stems = FreeStems(tmp_path, (".jpg",), [tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "c_1.jpg"])
    assert [stems.take(stem) for stem in ("a", "a", "b", "c", "c", "c")] == ["a_1", "a_2", "b", "c", "c_2", "c_3"]
    assert [FreeStems(tmp_path, (".mp4", ".avi"), [tmp_path / "a.avi"]).take(stem) for stem in "ab"] == ["a_1", "b"]


def test_many_files_of_one_name_are_quick(tmp_path):
    """5000 of them: with a search from the start for each it takes minutes."""
    stems = FreeStems(tmp_path, (".jpg",))
    taken = [stems.take("image") for _ in range(5000)]
    assert len(set(taken)) == 5000 and taken[-1] == "image_4999"


@pytest.mark.parametrize("fps", [12.5, None])
@pytest.mark.parametrize("size", [(40, 60), (41, 61)])
def test_a_video_has_the_size_and_rate_of_its_source(tmp_path, fps, size):
    writer = VideoWriter(tmp_path / "film.x", fps, 0.5)
    assert writer.path is None
    for i in range(3):
        writer.add("", replace(PREDICTION, image=np.full((*size, 3), 80 * i, np.uint8)))
    writer.add("", replace(PREDICTION, image=np.full((80, 120, 3), 240, np.uint8)))  # of another size
    writer.close()
    assert writer.path == tmp_path / "film.x.mp4"
    video = Video(tmp_path / "film.x.mp4")
    assert (video.fps, video.count) == (fps or DEFAULT_FPS, 4)
    frames = [frame.pixels for frame in video]
    assert [frame.shape for frame in frames] == [(40, 60, 3)] * 4  # no odd sizes
    assert [round(float(frame[28:, 50:].mean()) / 80) for frame in frames] == [0, 1, 2, 3]


def test_pictures(tmp_path):
    PictureWriter(tmp_path, 0.5).add("", replace(PREDICTION, name="a"))
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (40, 60, 3)


def test_a_codec_that_is_missing_is_replaced_and_named(tmp_path, monkeypatch, caplog):
    class WithoutMpeg4:
        def __init__(self, path: str, codec: int, *rest: object) -> None:
            self._opened = codec == cv2.VideoWriter.fourcc(*"MJPG")

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def isOpened(self) -> bool:
            return self._opened

        def write(self, picture: np.ndarray) -> None: ...

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", WithoutMpeg4)
    writer = VideoWriter(Path(tmp_path, "film"), None, 0.5)
    writer.add("", PREDICTION)
    assert writer.path == tmp_path / "film.avi"
    assert "film.mp4: this OpenCV writes no mp4v" in caplog.text
