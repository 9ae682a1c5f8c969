"""Pictures side by side: colors tell what is right, false and missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from efftasks.evaluation.comparison import match_record
from efftasks.evaluation.records import EvaluationRecord, digest_of
from efftasks.imaging.rle import encode_rle
from efftasks.reports.compare_pictures import SideBySide

BLUE, GREEN, RED, ORANGE = (230, 120, 40), (60, 170, 30), (40, 40, 230), (0, 150, 255)
LEFT, RIGHT = [10.0, 10.0, 30.0, 40.0], [60.0, 10.0, 30.0, 40.0]  # boxes xywh


def gray(path: Path) -> Path:
    cv2.imwrite(str(path), np.full((60, 100, 3), 128, np.uint8))
    return path


def filled(box: list[float]) -> dict[str, Any]:
    mask = np.zeros((60, 100), bool)
    mask[int(box[1]) : int(box[1] + box[3]), int(box[0]) : int(box[0] + box[2])] = True
    return encode_rle(mask)


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], 2, box[0] + box[2], box[1] + box[3], 2]


def record(path: Path, boxes: list[tuple[list[float], float]], kind: str) -> EvaluationRecord:
    """An object at the left; detections are boxes with scores."""
    images = [dict(id=1, file_name=path.name, height=60, width=100, path=str(path))]

    def entry(box: list[float]) -> dict[str, Any]:
        parts = dict(image_id=1, category_id=4, bbox=box, segmentation=filled(box), keypoints=corners(box))
        return {
            key: value
            for key, value in parts.items()
            if key not in ("segmentation", "keypoints") or key[:4] == kind[:4]
        }

    truth = dict(
        images=images,
        annotations=[dict(entry(LEFT), id=1, area=1200, iscrowd=0, num_keypoints=2)],
        categories=[dict(id=4, name="cat", skeleton=[[1, 2]])],
    )
    detections = [dict(entry(box), score=score) for box, score in boxes]
    sigmas = (0.1, 0.1) if kind == "keypoints" else None
    digest = digest_of(images, truth, None)
    return EvaluationRecord("m", "", (kind,), images, truth, detections, sigmas, (), None, {}, 0.1, digest)


def panels(data: bytes, count: int) -> list[np.ndarray]:
    """The pictures without their captions."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    width = (picture.shape[1] + 6) // count
    return [picture[24:, i * width : (i + 1) * width - 6].astype(int) for i in range(count)]


def colors_in(panel: np.ndarray) -> list[set[str]]:
    """Of the left and the right half, the colors of marks."""
    named = dict(blue=BLUE, green=GREEN, red=RED, orange=ORANGE)
    return [
        {name for name, color in named.items() if (np.abs(half - color).sum(2) < 60).sum() > 15}
        for half in np.array_split(panel, 2, axis=1)
    ]


def test_right_false_and_missed_have_their_colors(tmp_path: Path) -> None:
    path = gray(tmp_path / "1.png")
    for kind in ("bbox", "segm", "keypoints"):
        records = [
            record(path, [(LEFT, 0.9)], kind),
            record(path, [(LEFT, 0.2), (RIGHT, 0.8)], kind),  # the right one scores too little to be shown
        ]
        matches = [match_record(one, (kind,)) for one in records]
        drawn = SideBySide(records, matches, ["a", "b"], 0.3).draw(0)
        assert drawn is not None
        truth, first, second = map(colors_in, panels(drawn, 3))
        assert truth == [{"blue"}, set()], kind
        assert first == [{"green"}, set()], kind
        assert second == [{"orange"}, {"red"}], kind


def test_an_image_that_is_gone_has_no_picture(tmp_path: Path) -> None:
    records = [record(tmp_path / "none.png", [], "bbox")] * 2
    matches = [match_record(one, ("bbox",)) for one in records]
    assert SideBySide(records, matches, ["a", "b"], 0.3).draw(0) is None


def test_label_maps(tmp_path: Path) -> None:
    path = gray(tmp_path / "1.png")
    maps = [np.zeros((60, 100), np.uint8), np.ones((60, 100), np.uint8), np.full((60, 100), 255, np.uint8)]
    images = [dict(id=0, file_name="1.png", path=str(path))]
    confusion = np.ones((1, 2, 2), np.int64)
    alone = EvaluationRecord("m", "", (), images, None, [], None, ("floor", "wall"), confusion, {}, 0.1, "")
    drawn = SideBySide([alone, alone], [{}, {}], ["a", "b"], 0.3).draw(0, maps)
    assert drawn is not None
    colors = [part.mean((0, 1)) for part in panels(drawn, 3)]
    assert np.abs(colors[0] - colors[1]).max() > 20
    assert np.abs(colors[2] - 128).max() < 3  # ignored pixels are not colored
