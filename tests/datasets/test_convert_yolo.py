from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_convert import Conversion, UnreadableLabel
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Source
from efftasks.datasets.convert_yolo import read_yolo
from efftasks.datasets.convert_yolo_labels import LabelForm, read_label_file
from efftasks.datasets.convert_yolo_names import read_metadata
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import keypoint_metadata

GOOD = "0 0.5 0.5 0.2 0.4\n"


def put_image(path: Path, width: int = 200, height: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def put_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def whole(source: Source) -> Conversion:
    """The conversion of a set that has one part."""
    (name, part), *others = source.parts.items()
    assert not others
    return convert(source, {name: part}, lambda _, item: part.name(item))[name][0]


@pytest.fixture
def yolo(tmp_path) -> Path:
    put_image(tmp_path / "images/a.jpg")
    put_image(tmp_path / "images/deep/b.png", 100, 50)
    put_image(tmp_path / "images/empty.jpg")
    put_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    put_text(tmp_path / "labels/deep/b.txt", "1 0.05 0.1 0.2 0.4\n")
    put_text(tmp_path / "data.yaml", "names:\n  0: cat\n  1: dog\n")
    return tmp_path


def test_boxes_and_polygons_by_hand(yolo, tmp_path):
    source = read_yolo(yolo)
    data = whole(source).to_coco("yolo")
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in data["images"]] == [
        (1, "a.jpg", 200, 100),
        (2, "deep/b.png", 100, 50),
        (3, "empty.jpg", 200, 100),
    ]
    first, second, third = data["annotations"]
    assert (first["bbox"], first["category_id"], first["area"]) == ([80, 30, 40, 40], 1, 1600)
    assert (second["bbox"], second["category_id"]) == ([20, 20, 40, 40], 2)
    assert second["segmentation"] == [[20, 20, 60, 20, 60, 60]] and second["area"] == 800
    assert third["bbox"] == [0, 0, 15, 15]  # its center is (5, 5) and its size (20, 20): the rest lies outside
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]
    assert set(map(tuple, source.report.notes.values())) == {("labels/deep/b.txt:1",), ("images/empty.jpg",)}
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", yolo / "images", ["cat", "dog"]).faults == []


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (30, 2))
    size = rng.uniform(0.05, 0.5, (30, 2))
    rows = [f"{k % 3} {c[0]} {c[1]} {s[0]} {s[1]}" for k, (c, s) in enumerate(zip(low + size / 2, size, strict=True))]
    put_image(tmp_path / "images/a.png", 320, 240)
    put_text(tmp_path / "labels/a.txt", "\n".join(rows))
    data = whole(read_yolo(tmp_path, ["x", "y", "z"])).to_coco("yolo")
    sides = np.array([320, 240])
    for k, annotation in enumerate(data["annotations"]):
        np.testing.assert_allclose(annotation["bbox"], [*(low[k] * sides), *(size[k] * sides)], atol=2e-3)
        assert annotation["category_id"] == k % 3 + 1


@pytest.mark.parametrize(
    "content",
    [
        b"1 0.5 0.5 0.2 0.4",
        b"1,0.5,0.5,0.2,0.4\n",
        b"1, 0.5, 0.5, 0.2, 0.4,\n",
        b"1;0.5;0.5;0.2;0.4\n",
        b"1\t0.5\t0.5\t0.2\t0.4\r\n\r\n",
        b"1 0,5 0,5 0,2 0,4\n",
        b"\xef\xbb\xbf1 0.5 0.5 0.2 0.4\n",
        "1 0.5 0.5 0.2 0.4\n".encode("utf-16"),
        b"1.0 5e-1 .5 2e-1 0.4\r\n",
        b"1 0.5 0.5 0.2 0.4 0.93\n",
        b"1 0.5 0.5 0.2 0.4 17\n",
    ],
)
def test_what_is_written_otherwise_is_read(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    (shape,) = read_label_file(tmp_path / "a.txt", "a.txt", LabelForm(2), (200, 100))
    assert shape.label == 1 and shape.box == pytest.approx([80, 30, 120, 70])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "neither 5 numbers .*a.txt:2 has 4"),
        ("0 0.5 0.5 0.2 0.2 0.9 0.1 0.1", "neither 5 numbers .*a.txt:2 has 8"),
        ("cat 0.5 0.5 0.2 0.2", "no numbers"),
        ("7 0.5 0.5 0.1 0.1", "none of 0 to 1, those with a name .*a.txt:2 has 7"),
        ("-1 0.5 0.5 0.1 0.1", "none of 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "none of 0 to 1"),
        ("0 80 30 40 40", "no shares of the image"),
        ("0 nan 0.5 0.1 0.1", "nan or inf"),
        ("0 0.5 0.5 -0.1 0.1", "negative width or height"),
        ("0 .5 .5 .2 .2 .1 .1 2 .2 .2 2 .3 .3 0 .4 .4 1", "look like keypoints, without kpt_shape"),
    ],
)
def test_a_line_that_cannot_be_read_makes_its_file_unreadable(tmp_path, line, reason):
    put_text(tmp_path / "a.txt", GOOD + line)
    with pytest.raises(UnreadableLabel, match=reason):
        read_label_file(tmp_path / "a.txt", "a.txt", LabelForm(2), (200, 100))


def test_an_image_with_an_unreadable_line_is_taken_out_and_counted(yolo):
    for name in ("bad", "classless", "good"):
        put_image(yolo / f"images/{name}.jpg")
    put_text(yolo / "labels/bad.txt", GOOD + "0 0.5 0.5 0.2\n")
    put_text(yolo / "labels/classless.txt", "9 0.5 0.5 0.2 0.2\n")
    put_text(yolo / "labels/good.txt", GOOD + GOOD + "1 0.5 0.5 0 0.1\n")
    put_text(yolo / "labels/ghost.txt", GOOD)
    put_text(yolo / "labels/README.txt", "made by hand\n")
    (yolo / "labels/latin.txt").write_bytes(b"\xe9")
    put_image(yolo / "images/latin.jpg")
    (yolo / "images/broken.jpg").write_bytes(b"")
    source = read_yolo(yolo)
    result = whole(source)
    assert [i["file_name"] for i in result.images] == ["a.jpg", "deep/b.png", "empty.jpg", "good.jpg"]
    assert len([a for a in result.annotations if a["image_id"] == 4]) == 1  # a repeated line, and one of no size
    removed = [place for places in source.report.removed.values() for place in places]
    assert sorted(removed) == [
        "images/broken.jpg is empty (0 bytes)",
        "labels/bad.txt:2 has 4",
        "labels/classless.txt:1 has 9",
        "labels/latin.txt",
    ]
    skipped = [place for places in source.report.skipped.values() for place in places]
    assert sorted(skipped) == ["labels/ghost.txt", "labels/good.txt:2", "labels/good.txt:3"]
    text = "\n".join(source.report.render_lines())
    assert "images taken out (4):" in text and "labels/bad.txt:2" in text


def test_pixels_are_refused_with_the_remedy(tmp_path):
    for number in range(3):
        put_image(tmp_path / f"images/{number}.jpg")
        put_text(tmp_path / f"labels/{number}.txt", "0 100 50 40 40\n" if number else GOOD)
    with pytest.raises(UserError, match=r"2 of 3 images have .* no shares .*labels/1.txt:1\); divide x and width by"):
        whole(read_yolo(tmp_path, ["a"]))


def test_most_label_files_missing_is_told_loudly(yolo):
    put_image(yolo / "images/one.jpg")
    source = read_yolo(yolo)
    assert len(whole(source).images) == 4 and source.report.warnings == []
    put_image(yolo / "images/two.jpg")
    source = read_yolo(yolo)
    assert len(whole(source).images) == 5
    assert "3 of 5 images of the set have no label file" in source.report.warnings[0]
    with pytest.raises(UserError, match=r"none of 5 images of the set shows an object.*--labels DIR"):
        (yolo / "elsewhere").mkdir()
        whole(read_yolo(yolo, labels=yolo / "elsewhere"))


def test_label_files_elsewhere_and_images_elsewhere(yolo, tmp_path):
    moved = tmp_path / "moved"
    (yolo / "labels").rename(moved)
    (yolo / "images").rename(yolo / "photos")
    result = whole(read_yolo(yolo, images=yolo / "photos", labels=moved))
    assert len(result.images) == 3 and len(result.annotations) == 3


def test_two_images_of_one_label_file(yolo):
    put_image(yolo / "images/a.png")
    source = read_yolo(yolo)
    assert len(whole(source).images) == 3
    assert list(source.report.removed.values()) == [["images/a.png, a.jpg"]]


def test_a_list_names_images_that_are_not_there(yolo):
    put_text(yolo / "train.txt", "./images/a.jpg\n/home/x/mine/images/deep/b.png\nimages/none.jpg\n\n")
    put_text(yolo / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    source = read_yolo(yolo / "data.yaml")
    assert [item.path.name for item in source.parts["train"].items] == ["a.jpg", "b.png"]
    assert list(source.report.removed.values()) == [["train.txt:3 images/none.jpg"]]


def test_a_sibling_data_set_is_not_mistaken_for_this_one(tmp_path):
    for name in ("mine", ""):  # Roboflow's ../train/images, with another set's train/images beside
        put_image(tmp_path / name / "train/images" / f"{name or 'other'}.jpg")
        put_text(tmp_path / name / "train/labels" / f"{name or 'other'}.txt", GOOD)
    put_text(tmp_path / "mine/data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [cat]\n")
    source = read_yolo(tmp_path / "mine/data.yaml")
    assert [item.path.name for item in source.parts["train"].items] == ["mine.jpg"]
    assert list(source.report.notes.values()) == [["data.yaml: val = ../valid/images"]]


def test_a_training_part_that_is_nowhere(tmp_path):
    put_text(tmp_path / "data.yaml", "train: pictures/train\nnames: [cat]\n")
    with pytest.raises(UserError, match="'train' is pictures/train, which is neither there nor below"):
        read_yolo(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("data.yaml", "names: [cat, dog]\nnc: 2\n", ["cat", "dog"]),
        ("set.yml", "names:\n  1: dog\n  0: cat\n", ["cat", "dog"]),
        ("data.yaml", "names: {'1': dog, '0': cat}\n", ["cat", "dog"]),
        ("data.yaml", "names: [yes, 1]\n", ["True", "1"]),
        ("classes.txt", "cat\ndog\n\n", ["cat", "dog"]),
        ("obj.names", "\ufeffcat\r\ndog\r\n", ["cat", "dog"]),
        ("labels/classes.txt", "cat\ndog", ["cat", "dog"]),
        ("data.yaml", "names: {0: cat, 2: dog}\n", "without gaps"),
        ("data.yaml", "nc: 2\n", "expected at least one"),
        ("data.yaml", "names: [cat, cat]\n", "each once"),
        ("data.yaml", "names: [cat\n", "is not YAML"),
        ("data.yaml", "- cat\n", "is a list"),
        ("data.yaml", "names: [cat]\nkpt_shape: 17\n", "'kpt_shape' is 17"),
        ("data.yaml", "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: [0, 0]\n", "'flip_idx' is"),
        ("data.yaml", "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: [0, a]\n", "'flip_idx' is"),
        ("data.yaml", "names: [cat]\nkpt_shape: [2, 3]\nkpt_names: 5\n", "'kpt_names' has 5"),
        ("data.yaml", "names: 5\n", "'names' is 5"),
        ("other.txt", "cat\n", "no class names found"),
    ],
)
def test_class_names(tmp_path, name, text, expected):
    put_text(tmp_path / name, text)
    if isinstance(expected, list):
        assert read_metadata(tmp_path, None, None, None).names == expected
        assert read_metadata(tmp_path / "elsewhere", None, tmp_path / name, None).names == expected
    else:
        with pytest.raises(UserError, match=expected):
            read_metadata(tmp_path, None, None, None)


def test_without_pyyaml_the_names_can_be_given(yolo, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data\.yaml: reading it needs PyYAML; pip install pyyaml, or give --classes"):
        read_yolo(yolo)
    assert len(whole(read_yolo(yolo, ["cat", "dog"])).annotations) == 3


def test_two_descriptions_are_not_guessed_between(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        put_text(tmp_path / name, f"names: [{name[0]}]\n")
    with pytest.raises(UserError, match=r"holds the files a.yaml, b.yaml, expected one"):
        read_metadata(tmp_path, None, None, None)
    assert read_metadata(tmp_path, tmp_path / "b.yaml", None, None).names == ["b"]
    assert read_metadata(tmp_path, None, None, ["c"]).names == ["c"]


POSE = "0 0.5 0.5 0.5 0.5 0.3 0.3 2 0.7 0.3 1 0 0 0\n"


@pytest.mark.parametrize(
    ("yaml", "lines"),
    [
        ("kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\n", POSE),
        ("kpt_shape: [3, 2]\nflip_idx: [1, 0, 2]\n", "0 0.5 0.5 0.5 0.5 0.3 0.3 0.7 0.3 0 0\n"),
    ],
)
def test_pose_labels_by_hand(tmp_path, yaml, lines):
    put_image(tmp_path / "images/a.png")
    put_text(tmp_path / "labels/a.txt", lines)
    put_text(tmp_path / "data.yaml", f"names: [hand]\n{yaml}")
    source = read_yolo(tmp_path)
    data = whole(source).to_coco("yolo")
    (row,) = data["annotations"]
    assert row["bbox"] == [50, 25, 100, 50] and row["num_keypoints"] == 2
    assert row["keypoints"] == [60, 30, 2, 140, 30, 1 if "3, 3" in yaml else 2, 0, 0, 0]
    (category,) = data["categories"]
    assert keypoint_metadata({}, category["keypoints"]).mirror == (1, 0, 2) and source.report.warnings == []
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", tmp_path / "images", keypoints=3).faults == []


@pytest.mark.parametrize(
    ("yaml", "warning"),
    [
        ("kpt_shape: [3, 3]\n", "no flip_idx"),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nkpt_names: [a, b, c]\n", r"flip_pairs=\[(0, 1)\]"),
    ],
)
def test_pose_labels_whose_mirror_is_not_known(tmp_path, yaml, warning):
    put_image(tmp_path / "images/a.png")
    put_text(tmp_path / "labels/a.txt", POSE)
    put_text(tmp_path / "data.yaml", f"names: [hand]\n{yaml}")
    source = read_yolo(tmp_path)
    assert len(whole(source).annotations) == 1
    assert len(source.report.warnings) == 1 and warning.replace("\\", "") in source.report.warnings[0]


def test_pose_lines_of_another_length_take_their_image_out(tmp_path):
    for name, lines in (("a", POSE), ("b", GOOD)):
        put_image(tmp_path / f"images/{name}.png")
        put_text(tmp_path / f"labels/{name}.txt", lines)
    put_text(tmp_path / "data.yaml", "names: [hand]\nkpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\n")
    source = read_yolo(tmp_path)
    assert len(whole(source).images) == 1
    assert list(source.report.removed.values()) == [["labels/b.txt:1 has 5"]]


def test_nothing_to_convert_is_an_error(yolo, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        read_yolo(tmp_path / "none", ["a"])
    with pytest.raises(UserError, match="nowhere: no such folder; expected a YOLO data set"):
        read_yolo(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected a folder, a data.yaml or an obj.data"):
        read_yolo(put_text(tmp_path / "x.json", json.dumps({})))
