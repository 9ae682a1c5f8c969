from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_convert import Conversion
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_coco import read_coco_export
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Source
from efftasks.imaging.rle import encode_rle
from efftasks.structures.errors import UserError


def put_image(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def image(key: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "file_name": name, "width": 40, "height": 30, **more}


def row(key: int, image_id: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image_id, "category_id": 3, "bbox": [4, 5, 10, 12], "area": 120, **more}


def put(path: Path, images: list, annotations: list, categories: list | None = None, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = categories or [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data), encoding=encoding)
    return path


def whole(source: Source) -> Conversion:
    ((name, part),) = source.parts.items()
    return convert(source, {name: part}, lambda _, item: part.name(item))[name][0]


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a", "b"):
        put_image(tmp_path / f"images/{name}.png")
    return tmp_path


def test_everything_of_an_annotation_is_kept(root, tmp_path):
    mask = np.zeros((30, 40), bool)
    mask[5:15, 4:20] = True
    points = [5, 6, 2, 10, 12, 1, 0, 0, 0]
    rows = [
        row(5, 9, segmentation=[[4, 5, 14, 5, 14, 17], [20, 20, 24, 20, 24, 25]], keypoints=points, num_keypoints=2),
        row(6, 9, segmentation=encode_rle(mask), category_id=7, iscrowd=1, area=160),
        row(7, "x", segmentation=[4, 5, 14, 5, 14, 17]),
        {"id": 8, "image_id": "x", "category_id": 3, "segmentation": [[4, 5, 14, 5, 14, 17]]},
    ]
    body = {"keypoints": ["l", "r", "m"], "skeleton": [[1, 2]]}
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "pet", **body}]
    put(root / "result.json", [image(9, "images/a.png"), image("x", "images\\b.png")], rows, categories, "utf-8-sig")
    source = read_coco_export(root)
    data = whole(source).to_coco("coco")
    assert [c["name"] for c in data["categories"]] == ["cat", "dog"]  # in the order of their ids
    assert data["categories"][0] == {"id": 1, "name": "cat", "supercategory": "pet", **body}
    first, second, third, fourth = data["annotations"]
    assert first["segmentation"] == rows[0]["segmentation"] and first["keypoints"] == points
    assert (first["bbox"], first["area"], first["num_keypoints"]) == ([4, 5, 10, 12], 120, 2)
    assert second["segmentation"] == rows[1]["segmentation"] and second["iscrowd"] == 1 and second["category_id"] == 2
    assert third["segmentation"] == [[4, 5, 14, 5, 14, 17]] and third["image_id"] == 2
    assert fourth["bbox"] == [4, 5, 10, 12] and fourth["area"] == 60
    write_json(tmp_path / "ann.json", data)
    assert check_coco(tmp_path / "ann.json", root / "images").faults == []


def test_brush_masks_that_are_marked_as_crowds(root):
    put(root / "result.json", [image(1, "a.png")], [row(1, 1, iscrowd=1, segmentation=[[4, 5, 14, 5, 14, 17]])])
    source = read_coco_export(root)
    assert whole(source).annotations[0]["iscrowd"] == 1 and "--no-crowd" in source.report.warnings[0]
    source = read_coco_export(root, crowds=False)
    assert whole(source).annotations[0]["iscrowd"] == 0 and source.report.warnings == []
    (root / "result.json").unlink()
    put(root / "result.json", [image(1, "a.png")], [row(key, 1, iscrowd=int(key == 0)) for key in range(20)])
    source = read_coco_export(root)  # a few are as they are meant
    assert whole(source).annotations[0]["iscrowd"] == 1 and source.report.warnings == []


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (row(1, 2, bbox=["4", "5", "1", "2"]), "bbox that is not four numbers"),
        (row(1, 2, bbox=[4, 5, float("nan"), 2]), "bbox that is not four numbers"),
        (row(1, 2, bbox=None), "neither bbox nor segmentation"),
        (row(1, 2, category_id=4), "category_id that the file does not list"),
        (row(1, 2, segmentation=[[1, 2, 3, 4, 5]]), "polygon that is not x1, y1"),
        (row(1, 2, segmentation={"size": [3, 3], "counts": [9]}), "run-length masks"),
        (row(1, 2, keypoints=[1, 2]), "keypoints that are not"),
    ],
)
def test_what_cannot_be_read_takes_its_image_out(root, annotation, reason):
    put(root / "result.json", [image(1, "a.png"), image(2, "b.png")], [row(0, 1), annotation])
    source = read_coco_export(root)
    result = whole(source)
    assert [i["file_name"] for i in result.images] == ["a.png"] and len(result.annotations) == 1
    ((text, places),) = source.report.removed.items()
    assert reason in text and places[0].startswith("result.json: b.png, annotation 1")


def test_images_of_another_size_or_not_there_are_taken_out(root):
    images = [image(1, "a.png"), image(2, "b.png", width=80, height=60), image(3, "c.png")]
    put(root / "result.json", images, [row(1, 1), row(2, 2), row(3, 3), row(4, 99)])
    source = read_coco_export(root)
    assert len(whole(source).images) == 1
    places = [place for places in source.report.removed.values() for place in places]
    assert places == ["result.json: c.png", "result.json: b.png is 40 x 30, annotated as 80 x 60"]
    assert list(source.report.skipped.values()) == [["result.json: annotation 4"]]


@pytest.mark.parametrize(
    "written",
    [
        "a.png",
        "./images/a.png",
        "images\\a.png",
        "C:\\Users\\me\\set\\images\\a.png",
        "/data/upload/3/a.png",
        "http://localhost:8080/data/upload/3/a.png?token=1",
        "/data/local-files/?d=set/images/a.png",
        "s3://bucket/images/a.png",
        "../../upload/a.png",
        "A.PNG",
    ],
)
def test_names_of_another_machine(root, written):
    put(root / "result.json", [image(1, written)], [row(1, 1)])
    assert whole(read_coco_export(root)).images[0]["file_name"] == "a.png"


@pytest.mark.parametrize("written", ["a" * 300 + ".png", "http://[a.png", "deep/" + "b" * 300, "a\0.png"])
def test_names_that_no_file_can_have(root, written):
    put(root / "result.json", [image(1, written), image(2, "b.png")], [row(1, 1), row(2, 2)])
    source = read_coco_export(root)
    assert [i["file_name"] for i in whole(source).images] == ["b.png"]
    assert [len(places) for places in source.report.removed.values()] == [1]


def test_a_name_that_two_images_have_is_not_guessed(root):
    for folder in ("x", "y"):
        put_image(root / folder / "c.png")
    put(root / "result.json", [image(1, "c.png"), image(2, "somewhere/y/c.png"), image(3, "y/c.png")], [row(1, 2)])
    source = read_coco_export(root)
    assert [item.path for item in source.parts[""].items] == [root / "y/c.png"]
    assert [len(places) for places in source.report.removed.values()] == [1, 1]


def test_two_files_of_one_part(root):
    for stem in ("instances_default", "person_keypoints_default"):
        put(root / f"annotations/{stem}.json", [image(1, "a.png")], [row(1, 1)])
    source = read_coco_export(root)
    assert source.report.skipped and list(source.parts) == ["default"]
    assert list(read_coco_export(root / "annotations/person_keypoints_default.json").parts) == [""]
    put(root / "annotations/default.json", [image(1, "a.png")], [row(1, 1)])
    (root / "annotations/instances_default.json").unlink()
    with pytest.raises(UserError, match="both are 'default'; give one as SOURCE"):
        read_coco_export(root)


def test_categories_of_two_files_go_by_their_names(root):
    put(root / "annotations/instances_train.json", [image(1, "a.png")], [row(1, 1)])
    other = [{"id": 3, "name": "dog"}, {"id": 4, "name": "owl"}]
    put(root / "annotations/instances_val.json", [image(1, "b.png")], [row(1, 1)], other)
    source = read_coco_export(root)
    results = convert(source, source.parts, lambda _, item: item.path.name)
    names = [category["name"] for category in source.categories]
    assert names == ["cat", "dog", "owl"]
    assert names[results["val"][0].annotations[0]["category_id"] - 1] == "dog"


def test_a_class_list_chooses(root):
    put(root / "result.json", [image(1, "a.png")], [row(1, 1), row(2, 1, category_id=7)])
    source = read_coco_export(root, ["dog"])
    assert [a["category_id"] for a in whole(source).annotations] == [1] and not source.report.removed
    with pytest.raises(UserError, match="--classes: got owl, expected some of cat, dog"):
        read_coco_export(root, ["owl"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no COCO file"),
        ('{"images": [1], "categories": []}', "'images' is no list of objects"),
        ('{"images": [], "categories": [{"id": 1}]}', "expected a name for each"),
    ],
)
def test_what_is_no_coco_file(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    for source in (tmp_path, tmp_path / "x.json"):
        with pytest.raises(UserError, match=message):
            read_coco_export(source)
