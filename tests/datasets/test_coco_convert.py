from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_convert import render_conversion, split_names
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_voc import convert_voc, voc_folders
from efftasks.datasets.convert_yolo import convert_yolo, read_class_names, yolo_folders
from efftasks.structures.errors import UserError


def put_image(path: Path, width: int = 200, height: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def put_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def yolo(tmp_path) -> Path:
    put_image(tmp_path / "images/a.jpg")
    put_image(tmp_path / "images/deep/b.png", 100, 50)
    put_image(tmp_path / "images/empty.jpg")
    put_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    put_text(tmp_path / "labels/deep/b.txt", "1 0.05 0.1 0.2 0.4\n")
    put_text(tmp_path / "data.yaml", "names:\n  0: cat\n  1: dog\n")
    return tmp_path


def test_yolo_boxes_and_polygons_by_hand(yolo, tmp_path):
    result = convert_yolo(*yolo_folders(yolo), read_class_names(yolo))
    data = result.to_coco()
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in data["images"]] == [
        (1, "a.jpg", 200, 100),
        (2, "deep/b.png", 100, 50),
        (3, "empty.jpg", 200, 100),
    ]
    first, second, third = data["annotations"]
    assert (first["bbox"], first["category_id"], first["area"]) == ([80, 30, 40, 40], 1, 1600)
    assert (second["bbox"], second["category_id"]) == ([20, 20, 40, 40], 2)
    assert second["segmentation"] == [[20, 20, 60, 20, 60, 60]] and second["area"] == 800
    assert third["bbox"] == [0, 0, 15, 15]  # its centre is (5, 5) and its size (20, 20): the rest lies outside
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]
    assert list(result.notes.values()) == [["b.txt:1"], ["empty.jpg"]]
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", yolo / "images", ["cat", "dog"]).faults == []


def test_yolo_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (30, 2))
    size = rng.uniform(0.05, 0.5, (30, 2))
    rows = [f"{k % 3} {c[0]} {c[1]} {s[0]} {s[1]}" for k, (c, s) in enumerate(zip(low + size / 2, size, strict=True))]
    put_image(tmp_path / "images/a.png", 320, 240)
    put_text(tmp_path / "labels/a.txt", "\n".join(rows))
    data = convert_yolo(tmp_path / "images", tmp_path / "labels", ["x", "y", "z"]).to_coco()
    sides = np.array([320, 240])
    for k, annotation in enumerate(data["annotations"]):
        np.testing.assert_allclose(annotation["bbox"], [*(low[k] * sides), *(size[k] * sides)], atol=2e-3)
        assert annotation["category_id"] == k % 3 + 1


def test_yolo_says_what_it_skips(yolo):
    lines = ["0 0.5 0.5 0.2", "0 0.5 0.5 0.2 0.2 0.9", "cat 1 2 3 4", "7 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1"]
    lines += ["0 80 30 40 40", "0 nan 0.5 0.1 0.1", "0 0.5 0.5 0.1 0", "0 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1"]
    put_text(yolo / "labels/a.txt", "\n".join([*lines, "0 0.2 0.2 0.2 0.2 0.2 0.2"]))
    put_text(yolo / "labels/ghost.txt", "0 0.5 0.5 0.1 0.1")
    (yolo / "images/empty.jpg").write_bytes(b"")
    result = convert_yolo(*yolo_folders(yolo), ["cat", "dog"])
    assert sorted(len(places) for places in result.skipped.values()) == [1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert len(result.annotations) == 2 and len(result.images) == 2
    text = render_conversion(result, "out.json")
    for part in ("ghost.txt", "a.txt:6", "empty.jpg is empty (0 bytes)", "2 images, 2 annotations, 2 categories"):
        assert part in text


def test_yolo_layouts(tmp_path):
    for folder in ("images/val", "labels/val", "test/images", "test/labels"):
        (tmp_path / "one" / folder).mkdir(parents=True)
    assert yolo_folders(tmp_path / "one", "val") == (tmp_path / "one/images/val", tmp_path / "one/labels/val")
    assert yolo_folders(tmp_path / "one", "test") == (tmp_path / "one/test/images", tmp_path / "one/test/labels")
    (tmp_path / "flat").mkdir()
    assert yolo_folders(tmp_path / "flat") == (tmp_path / "flat", tmp_path / "flat")
    with pytest.raises(UserError, match="no such folder; expected images in"):
        yolo_folders(tmp_path / "one", "train")
    with pytest.raises(UserError, match="no such folder; expected a YOLO data set"):
        yolo_folders(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("data.yaml", "names: [cat, dog]\nnc: 2\n", ["cat", "dog"]),
        ("set.yml", "names:\n  1: dog\n  0: cat\n", ["cat", "dog"]),
        ("classes.txt", "cat\ndog\n\n", ["cat", "dog"]),
        ("data.yaml", "names: {0: cat, 2: dog}\n", "without gaps"),
        ("data.yaml", "nc: 2\n", "expected at least one"),
        ("data.yaml", "names: [cat, cat]\n", "each once"),
        ("data.yaml", "names: [cat\n", "is not YAML"),
        ("data.yaml", "names: [cat]\nkpt_shape: [17, 3]\n", "pose labels"),
        ("other.txt", "cat\n", "no class names found"),
    ],
)
def test_class_names(tmp_path, name, text, expected):
    put_text(tmp_path / name, text)
    if isinstance(expected, list):
        assert read_class_names(tmp_path) == expected
        assert read_class_names(tmp_path / "elsewhere", tmp_path / name) == expected
    else:
        with pytest.raises(UserError, match=expected):
            read_class_names(tmp_path)


def voc_object(name: str, box: tuple, difficult: int = 0) -> str:
    corners = "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def voc_file(name: str, *objects: str, width: int = 200, height: int = 100) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path) -> Path:
    put_image(tmp_path / "JPEGImages/b.jpg")
    put_image(tmp_path / "JPEGImages/a.jpg")
    objects = voc_object("dog", (1, 1, 200, 100)), voc_object("cat", (11, 21, 20, 40), difficult=1)
    put_text(tmp_path / "Annotations/a.xml", voc_file("stale.jpg", *objects))
    put_text(tmp_path / "Annotations/b.xml", voc_file("b.jpg", voc_object("cat", (5.5, 6, 10, 20))))
    put_text(tmp_path / "ImageSets/Main/train.txt", "b  1\nmissing\n")
    return tmp_path


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (1, [[0, 0, 200, 100], [10, 20, 10, 20], [4.5, 5, 5.5, 15]]),
        (0, [[1, 1, 199, 99], [11, 21, 9, 19], [5.5, 6, 4.5, 14]]),
    ],
)
def test_voc_boxes_by_hand(voc, tmp_path, offset, expected):
    images, annotations, stems = voc_folders(voc)
    data = convert_voc(images, annotations, stems=stems, offset=offset).to_coco()
    assert [annotation["bbox"] for annotation in data["annotations"]] == expected
    assert [annotation["category_id"] for annotation in data["annotations"]] == [2, 1, 1]
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]
    assert [i["file_name"] for i in data["images"]] == ["a.jpg", "b.jpg"]
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", images).faults == []


def test_voc_options(voc):
    images, annotations, stems = voc_folders(voc, "train")
    result = convert_voc(images, annotations, stems=stems)
    assert [i["file_name"] for i in result.images] == ["b.jpg"]
    assert result.skipped == {"names in the split list without an XML file": ["missing"]}
    result = convert_voc(images, annotations, classes=["cat"], skip_difficult=True)
    assert len(result.annotations) == 1
    assert [len(places) for places in result.skipped.values()] == [1, 1]
    with pytest.raises(UserError, match="no such list"):
        voc_folders(voc, "val")


def test_voc_says_what_it_skips(voc):
    put_text(voc / "Annotations/broken.xml", "<annotation><object>")
    put_text(voc / "Annotations/ghost.xml", voc_file("ghost.jpg", voc_object("dog", (1, 1, 9, 9))))
    put_image(voc / "JPEGImages/c.jpg", 50, 60)
    wrong = [("dog", (1, 1, 9)), ("dog", (9, 9, 4, 20)), ("dog", ("x", 1, 2, 3)), ("dog", (0, 1, 10, 10))]
    objects = [voc_object(name, box) for name, box in wrong]
    put_text(voc / "Annotations/c.xml", voc_file("c.jpg", *objects))
    result = convert_voc(*voc_folders(voc)[:2])
    assert {reason.split(" ")[0]: len(places) for reason, places in result.skipped.items()} == {
        "XML": 1,
        "objects": 2,
        "boxes": 1,
    }
    assert sum("c.xml" in places[0] for places in result.notes.values()) == 2  # another size, and a box from 0
    assert len(result.annotations) == 4


def test_voc_files_of_one_name_in_two_folders_are_not_mixed_up(tmp_path):
    for number, folder in enumerate(("x", "y")):
        put_image(tmp_path / "images" / folder / "a.jpg")
        box = (1, 1, 10 * (number + 1), 10)
        put_text(tmp_path / "annotations" / folder / "a.xml", voc_file("a.jpg", voc_object("dog", box)))
    put_text(tmp_path / "annotations/a.xml", voc_file("a.jpg", voc_object("dog", (1, 1, 99, 9))))  # whose is it?
    result = convert_voc(*voc_folders(tmp_path)[:2])
    assert [i["file_name"] for i in result.images] == ["x/a.jpg", "y/a.jpg"]
    assert [a["bbox"] for a in result.annotations] == [[0, 0, 10, 10], [0, 0, 20, 10]]
    assert list(result.skipped.values()) == [["a.xml"]]


def test_writing_is_deterministic_and_leaves_no_scraps(yolo, tmp_path):
    written = []
    for name in ("one.json", "two.json"):
        write_json(tmp_path / "out" / name, convert_yolo(*yolo_folders(yolo), ["a", "b"]).to_coco())
        written.append((tmp_path / "out" / name).read_bytes())
    assert written[0] == written[1] and json.loads(written[0])
    assert sorted(os.listdir(tmp_path / "out")) == ["one.json", "two.json"]


def test_nothing_to_convert_is_an_error(yolo, tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        convert_yolo(tmp_path / "labels", tmp_path / "labels", ["a"])
    with pytest.raises(UserError, match=r"holds no \.xml file"):
        convert_voc(tmp_path / "images", tmp_path / "images")
    with pytest.raises(UserError, match="no object of 3 images could be converted"):
        convert_yolo(tmp_path / "images", tmp_path / "images", ["a"]).to_coco()


@pytest.mark.parametrize("text", ["", " , ", "a,a"])
def test_class_lists_of_the_command_line(text):
    assert split_names("a, b ,c") == ["a", "b", "c"] and split_names(None) is None
    with pytest.raises(UserError, match="--classes"):
        split_names(text)
