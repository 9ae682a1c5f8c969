"""A quick look at a COCO file: each fault that would train or score in silence, and nothing of a good file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest

from efftasks.datasets.quick_check import CocoNeeds, quick_check_coco

TRAIN, SCORE = CocoNeeds(training=True), CocoNeeds(training=False)
EVERYTHING = CocoNeeds(training=True, masks=True, keypoints=True)


def clean() -> dict[str, Any]:
    """Six images of 40 x 30 with an object of each of two classes."""
    images = [dict(id=i, file_name=f"{i}.png", width=40, height=30) for i in range(6)]
    annotations = [
        dict(
            id=2 * i + c,
            image_id=i,
            category_id=c,
            bbox=[4, 5, 20, 10],
            area=200,
            iscrowd=0,
            segmentation=[[4, 5, 24, 5, 24, 15, 4, 15]],
            keypoints=[6, 6, 2, 0, 0, 0],
            num_keypoints=1,
        )
        for i in range(6)
        for c in (1, 2)
    ]
    categories = [dict(id=i, name=n, keypoints=["a", "b"], skeleton=[[1, 2]]) for i, n in ((1, "cat"), (2, "dog"))]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((30, 40, 3), 20 * i, np.uint8))
    return tmp_path


def findings(folder: Path, data: Any, needs: CocoNeeds, **options: Any) -> list[tuple[str, str]]:
    path = folder / "a.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    found = quick_check_coco(path, folder, needs, **options)
    assert all(str(path) in finding.message and "\n" not in finding.message for finding in found)
    return [(finding.level, finding.message) for finding in found]


@pytest.mark.parametrize("needs", [TRAIN, SCORE, EVERYTHING])
def test_of_a_good_file_there_is_nothing_to_say(folder: Path, needs: CocoNeeds) -> None:
    assert findings(folder, clean(), needs) == []
    assert findings(folder, clean(), needs, classes=("dog", "cat")) == []


def each(key: str, **more: Any) -> Callable[[dict], None]:
    def change(data: dict) -> None:
        for entry in data[key]:
            entry.update(more)

    return change


def first(key: str, **more: Any) -> Callable[[dict], None]:
    return lambda data: data[key][0].update(more)


def drop(key: str, field: str) -> Callable[[dict], None]:
    def change(data: dict) -> None:
        for entry in data[key]:
            del entry[field]

    return change


ERRORS: list[tuple[str, Callable[[dict], Any], CocoNeeds, str]] = [
    ("no images", lambda d: d.update(images=[]), TRAIN, "'images' is missing or empty"),
    ("no annotations", lambda d: d.update(annotations=[]), TRAIN, "none of 0 annotations is an object"),
    ("all crowds", each("annotations", iscrowd=1), TRAIN, r"none of 12 annotations is an object .*\(12 crowds\)"),
    ("texts", first("annotations", bbox=["1", "2", "3", "4"]), TRAIN, "annotation 1: 'bbox' is"),
    ("image ids", each("annotations", image_id="0"), SCORE, r"none of 12 .*\(12 of images that are not in it\)"),
    ("category ids", each("annotations", category_id=7), SCORE, "12 of unknown categories"),
    ("files", each("images", file_name="none.png"), TRAIN, "6 of 6 image files are not in .*such as none.png"),
    ("sizes", each("images", width=30, height=40), SCORE, "6 of 6 pictures .* is 40 x 30, the file says 30 x 40"),
    ("shares", each("annotations", bbox=[0.1, 0.2, 0.3, 0.4]), TRAIN, "all boxes lie within 0 and 1"),
    ("no size", each("annotations", bbox=[0, 0, 0, 0], segmentation=[], keypoints=[]), SCORE, "12 without size"),
    ("no masks", each("annotations", segmentation=[]), EVERYTHING, "none of 12 objects has a mask .* trains on"),
    ("masks to score", each("annotations", segmentation=[]), CocoNeeds(False, masks=True), "which this config scores"),
    ("no keypoints", each("annotations", keypoints=[0] * 6), EVERYTHING, "none of 12 objects has a labeled keypoint"),
    ("no names", drop("categories", "keypoints"), EVERYTHING, "none of 12 objects has a labeled keypoint"),
    ("keypoint number", first("annotations", keypoints=[1, 2, 2]), EVERYTHING, "has 3 numbers, expected 6"),
    ("rle", first("annotations", segmentation=dict(size=[9, 9], counts=[81])), EVERYTHING, "are of size"),
    ("odd", first("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), EVERYTHING, "a polygon has 7 numbers"),
]
WARNINGS: list[tuple[str, Callable[[dict], Any], CocoNeeds, str]] = [
    ("nothing to score", lambda d: d.update(annotations=[]), SCORE, "nothing to score: .* no best.pth"),
    ("no annotations", lambda d: d.pop("annotations"), SCORE, "nothing to score"),
    (
        "a root",
        lambda d: d["categories"].append(dict(id=0, name="root")),
        TRAIN,
        r"1 of the classes .*\('root'\).*`classes`",
    ),
    ("no size", first("annotations", bbox=[0] * 4, segmentation=[], keypoints=[]), SCORE, "1 objects have no size"),
    ("nan", first("annotations", bbox=[math.nan] * 4, segmentation=[], keypoints=[]), TRAIN, "1 objects have no size"),
    ("no box", first("annotations", bbox=None), TRAIN, "1 objects have no box of any size"),
    ("image id", first("annotations", image_id=99), TRAIN, "1 annotations are of images that are not in the file"),
    ("category id", first("annotations", category_id=99), SCORE, "1 annotations are of categories that are not"),
    ("a file", first("images", file_name="none.png"), TRAIN, "1 of 6 image files are missing"),
    ("a size", first("images", width=30, height=40), TRAIN, "1 of 6 pictures looked at have another size"),
    ("no sizes", drop("images", "width"), TRAIN, "6 images have no 'width' and 'height'"),
    ("files twice", first("images", file_name="1.png"), TRAIN, "1 images share their file"),
    ("corners", each("annotations", bbox=[20, 15, 30, 25]), TRAIN, "12 of 12 boxes reach outside .*x1, y1, x2, y2"),
    ("outside", first("annotations", bbox=[90, 90, 9, 9]), TRAIN, "1 boxes lie outside of their image"),
]


@pytest.mark.parametrize(("change", "needs", "said"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors(folder: Path, change: Callable, needs: CocoNeeds, said: str) -> None:
    data = clean()
    change(data)
    ((level, message),) = [found for found in findings(folder, data, needs) if found[0] == "error"]
    assert level == "error"
    assert re.search(said, message), message


@pytest.mark.parametrize(("change", "needs", "said"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS])
def test_warnings(folder: Path, change: Callable, needs: CocoNeeds, said: str) -> None:
    data = clean()
    change(data)
    if "outside" in said and "lie" in said:  # one of many
        data["annotations"] += [dict(row, id=100 + i) for i, row in enumerate(data["annotations"][1:])]
    found = findings(folder, data, needs)
    assert {level for level, _ in found} == {"warning"}
    (message,) = [message for _, message in found]
    assert re.search(said, message), message


def test_categories_that_are_no_classes(folder: Path) -> None:
    ((level, message),) = findings(folder, clean(), SCORE, classes=("dog",))
    assert level == "warning" and "6 annotations are of categories that are no classes ('cat')" in message
    ((level, message),) = findings(folder, clean(), SCORE, classes=("dog", "cow"))
    assert level == "error" and "'cow', which is no category of the file" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff"])
def test_what_is_no_coco_file(folder: Path, text: str) -> None:
    ((level, _),) = findings(folder, text, TRAIN)
    assert level == "error"


def test_a_missing_file(tmp_path: Path) -> None:
    (finding,) = quick_check_coco(tmp_path / "none.json", tmp_path, TRAIN)
    assert finding.level == "error" and "none.json: cannot be read" in finding.message


@pytest.mark.parametrize("name", ["bccd", "coco_mini", "coco_pose", "nuclei", "glue_tubes"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_sets_have_no_error(real_data: Path, name: str, split: str) -> None:
    root = real_data / name
    needs = CocoNeeds(
        split == "train", masks=name in ("coco_mini", "nuclei"), keypoints=name in ("coco_pose", "glue_tubes")
    )
    found = quick_check_coco(root / f"annotations/{split}.json", root / "images", needs)
    assert [finding for finding in found if finding.level == "error"] == []
