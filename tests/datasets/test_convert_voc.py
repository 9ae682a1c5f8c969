from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_convert import Conversion
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Source
from efftasks.datasets.convert_voc import read_voc
from efftasks.structures.errors import UserError


def put_image(path: Path, width: int = 200, height: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def whole(source: Source, part: str = "") -> Conversion:
    return convert(source, {part: source.parts[part]}, lambda _, item: source.parts[part].name(item))[part][0]


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
    return tmp_path


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (1, [[0, 0, 200, 100], [10, 20, 10, 20], [4.5, 5, 5.5, 15]]),
        (0, [[1, 1, 199, 99], [11, 21, 9, 19], [5.5, 6, 4.5, 14]]),
    ],
)
def test_boxes_by_hand(voc, tmp_path, offset, expected):
    data = whole(read_voc(voc, offset=offset)).to_coco("voc")
    assert [annotation["bbox"] for annotation in data["annotations"]] == expected
    assert [annotation["category_id"] for annotation in data["annotations"]] == [2, 1, 1]
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]
    assert [i["file_name"] for i in data["images"]] == ["a.jpg", "b.jpg"]
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", voc / "JPEGImages").faults == []


def test_the_lists_are_the_parts(voc):
    put_text(voc / "ImageSets/Main/train.txt", "b  1\nmissing\n")
    put_text(voc / "ImageSets/Main/val.txt", "a\n")
    put_text(voc / "ImageSets/Main/cat_val.txt", "a -1\n")
    source = read_voc(voc)
    assert {name: [i.path.name for i in part.items] for name, part in source.parts.items()} == {
        "train": ["b.jpg"],
        "val": ["a.jpg"],
    }
    assert list(source.report.removed.values()) == [["ImageSets/Main/train.txt: missing"]]


def test_a_class_list_and_difficult_objects_leave_objects_out(voc):
    source = read_voc(voc, classes=["cat"], skip_difficult=True)
    assert len(whole(source).annotations) == 1 and not source.report.removed
    assert [len(places) for places in source.report.skipped.values()] == [1, 1]


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (voc_object("dog", (1, 1, 9)), "c.xml, object 2: ymax is missing"),
        (voc_object("dog", ("x", 1, 2, 3)), "c.xml, object 2: xmin is 'x'"),
        (voc_object("dog", (9, 9, 4, 20)), "c.xml, object 2"),
        (voc_object("", (1, 1, 9, 9)), "c.xml, object 2"),
        ("<object><name>dog</name></object>", "c.xml, object 2"),
        ("<object>", "c.xml (mismatched tag"),
    ],
)
def test_what_cannot_be_read_takes_its_image_out(voc, xml, reason):
    put_image(voc / "JPEGImages/c.jpg")
    put_text(voc / "Annotations/c.xml", voc_file("c.jpg", voc_object("dog", (1, 1, 9, 9)), xml))
    source = read_voc(voc)
    assert [i["file_name"] for i in whole(source).images] == ["a.jpg", "b.jpg"]
    ((place,),) = source.report.removed.values()
    assert place.startswith(f"Annotations/{reason}")


def test_what_is_noted(voc):
    put_text(voc / "Annotations/ghost.xml", voc_file("ghost.jpg", voc_object("dog", (1, 1, 9, 9))))
    put_image(voc / "JPEGImages/c.jpg", 50, 60)
    put_image(voc / "JPEGImages/plain.jpg")
    put_text(voc / "Annotations/c.xml", voc_file("c.jpg", voc_object("dog", (0, 1, 10, 10))))
    source = read_voc(voc)
    assert len(whole(source).annotations) == 4
    assert list(source.report.removed.values()) == [["Annotations/ghost.xml"]]
    places = [place for places in source.report.notes.values() for place in places]
    # an image without an XML file, another size in the XML, and a box from 0
    assert places == ["JPEGImages/plain.jpg", "Annotations/c.xml", "Annotations/c.xml, object 1"]


def test_files_of_one_name_in_two_folders_are_not_mixed_up(tmp_path):
    for number, folder in enumerate(("x", "y")):
        put_image(tmp_path / "images" / folder / "a.jpg")
        box = (1, 1, 10 * (number + 1), 10)
        put_text(tmp_path / "annotations" / folder / "a.xml", voc_file("a.jpg", voc_object("dog", box)))
    put_text(tmp_path / "annotations/a.xml", voc_file("a.jpg", voc_object("dog", (1, 1, 99, 9))))  # whose is it?
    source = read_voc(tmp_path)
    result = whole(source)
    assert [i["file_name"] for i in result.images] == ["x/a.jpg", "y/a.jpg"]
    assert [a["bbox"] for a in result.annotations] == [[0, 0, 10, 10], [0, 0, 20, 10]]
    assert list(source.report.removed.values()) == [["annotations/a.xml"]]


def test_no_xml_file(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.xml file"):
        read_voc(tmp_path)
