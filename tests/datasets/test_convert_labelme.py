from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_convert import Conversion
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_labelme import read_labelme
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Source
from efftasks.imaging.rle import decode_rle
from efftasks.structures.errors import UserError


def put_image(path: Path, width: int = 100, height: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def shape(kind: str, points: Any, label: str = "cat", group: int | None = None, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **more}


def put(path: Path, *shapes: Any, **more: Any) -> None:
    name = path.with_suffix(".png").name
    data = {"version": "5.4.1", "shapes": shapes, "imagePath": name, "imageWidth": 100, "imageHeight": 80, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def whole(source: Source) -> Conversion:
    ((name, part),) = source.parts.items()
    return convert(source, {name: part}, lambda _, item: part.name(item))[name][0]


@pytest.fixture
def root(tmp_path) -> Path:
    put_image(tmp_path / "a.png")
    return tmp_path


def test_shapes_by_hand(root, tmp_path):
    mask = np.zeros((11, 21), np.uint8)
    mask[2:9, 3:20] = 1
    encoded = base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()
    put(
        root / "a.json",
        shape("polygon", [[10, 10], [30, 10], [30, 20]], "dog"),
        shape("rectangle", [[40, 50], [20, 30]]),
        shape("circle", [[60, 40], [60, 50]]),
        shape("mask", [[5, 60], [25, 70]], mask=encoded),
        shape("polygon", [[70, 10], [80, 10], [80, 20]], group=1),
        shape("polygon", [[85, 10], [95, 10], [95, 20]], group=1),
        shape("point", [[75, 12]], "nose", group=1),
    )
    source = read_labelme(root)
    data = whole(source).to_coco("labelme")
    polygon, rectangle, circle, brush, joined = data["annotations"]
    assert (polygon["bbox"], polygon["area"], polygon["category_id"]) == ([10, 10, 20, 10], 100, 2)
    assert polygon["segmentation"] == [[10, 10, 30, 10, 30, 20]]
    assert rectangle["bbox"] == [20, 30, 20, 20] and "segmentation" not in rectangle
    assert circle["bbox"] == [50, 30, 20, 20] and circle["area"] == pytest.approx(math.pi * 100, rel=0.01)
    assert brush["bbox"] == [8, 62, 17, 7] and brush["area"] == 17 * 7 == decode_rle(brush["segmentation"]).sum()
    assert joined["bbox"] == [70, 10, 25, 10] and len(joined["segmentation"]) == 2
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]
    assert list(source.report.skipped.values()) == [["a.json, shape 7"]]
    write_json(tmp_path / "out/ann.json", data)
    assert check_coco(tmp_path / "out/ann.json", root).faults == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (shape("line", [[1, 1], [9, 9]]), "type 'line', which has no box"),
        (shape("point", [[1, 1]], group=5), "type 'point', which has no box"),
        (shape("polygon", [[1, 1], [9, 9]]), "fewer than 3 points"),
        (shape("rectangle", [["x", 1], [9, 9]]), "fewer than 2 points, or of something else"),
        (shape("rectangle", None), "fewer than 2 points, or of something else"),
        (shape("polygon", [[1, 1], [9, 9], [9, 1]], label=""), "without a label"),
        (shape("mask", [[1, 1], [9, 9]], mask="?"), "no picture of one channel"),
    ],
)
def test_what_cannot_be_read_takes_its_image_out(root, broken, reason):
    put_image(root / "b.png")
    good = shape("rectangle", [[40, 50], [20, 30]])
    put(root / "a.json", good)
    put(root / "b.json", good, broken)
    source = read_labelme(root)
    assert [i["file_name"] for i in whole(source).images] == ["a.png"]
    assert list(source.report.removed.values()) == [["b.json, shape 2"]] and reason in next(iter(source.report.removed))


def test_a_class_list_leaves_the_other_shapes_out(root):
    put(root / "a.json", shape("rectangle", [[40, 50], [20, 30]]), shape("line", [[1, 1], [9, 9]], "wire"))
    source = read_labelme(root, ["cat"])
    assert len(whole(source).annotations) == 1 and not source.report.removed
    assert list(source.report.skipped.values()) == [["a.json, shape 2"]]


def test_where_the_image_is(root):
    box = shape("rectangle", [[40, 50], [20, 30]])
    put_image(root / "pictures/b.png")
    put_image(root / "renamed.png")
    put(root / "labels/a.json", box, imagePath="..\\a.png")
    put(root / "labels/b.json", box, imagePath="C:\\me\\b.png")
    put(root / "renamed.json", box, imagePath="before.png")
    put(root / "gone.json", box)
    source = read_labelme(root)
    assert [i["file_name"] for i in whole(source).images] == ["a.png", "pictures/b.png", "renamed.png"]
    assert list(source.report.removed.values()) == [["gone.json: gone.png"]]


def test_other_sizes_and_other_files(root):
    box = shape("rectangle", [[40, 50], [20, 30]])
    put_image(root / "b.png", 50, 40)
    put_image(root / "unlabeled.png")
    put(root / "a.json", box)
    put(root / "b.json", box)
    (root / "settings.json").write_text("{}")
    (root / "broken.json").write_text("{")
    source = read_labelme(root)
    assert [i["file_name"] for i in whole(source).images] == ["a.png"]
    removed = [place for places in source.report.removed.values() for place in places]
    assert removed[0].startswith("broken.json (") and removed[1] == "b.json is 50 x 40, annotated as 100 x 80"
    assert list(source.report.skipped.values()) == [["settings.json"]]
    assert list(source.report.notes.values()) == [["unlabeled.png"]]


def test_folders_are_parts(root):
    for part in ("train", "valid"):
        put_image(root / part / "x.png")
        put(root / part / "x.json", shape("rectangle", [[40, 50], [20, 30]]))
    assert sorted(read_labelme(root).parts) == ["train", "val"]


def test_no_file_of_labelme(tmp_path):
    with pytest.raises(UserError, match="holds no JSON file of labelme"):
        read_labelme(tmp_path)
