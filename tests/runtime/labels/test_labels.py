"""Pre-labels: what is written is read back by the converters of data sets, and by the tools' own packages."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.convert_coco import read_coco_export
from efftasks.datasets.convert_labelme import read_labelme
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Source
from efftasks.datasets.convert_yolo import read_yolo
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.labels.formats import FORMATS, check_folder, open_labels
from efftasks.structures.errors import UserError

SIZE = (90, 120)
BOXES = np.array([[10.5, 20.25, 60, 70], [70, 5, 110.125, 40], [0, 0, 9, 9], [30, 30, 30, 50]], np.float32)
SCORES = np.array([0.9, 0.75, 0.5, 0.45], np.float32)  # the last one has no area
NAMES = ("nose", "left_eye", "right_eye")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    return path


def boxes_of(path: Path, **more: Any) -> Prediction:
    labels, classes = np.array([1, 0, 1, 0]), ("cat", 'do"g & <co>')
    fields: dict[str, Any] = dict(classes=classes, category_ids=(3, 7), size=SIZE, name=path.stem)
    return Prediction(str(path), BOXES, SCORES, labels, **{**fields, **more})


def masks_of(path: Path) -> Prediction:
    """An ellipse; two parts with a hole; nothing; nothing."""
    masks = np.zeros((4, *SIZE), np.uint8)
    cv2.ellipse(masks[0], (35, 45), (24, 20), 0, 0, 360, 1, -1)
    masks[1, 8:38, 72:90] = masks[1, 8:38, 95:108] = 1
    masks[1, 15:25, 78:84] = 0
    return boxes_of(path, masks=masks > 0)


def points_of(path: Path) -> Prediction:
    points = np.zeros((4, 3, 3), np.float32)
    points[0] = [[20, 30, 0.9], [25.5, 31, 0.7], [-4, 30, 0.9]]  # the third one is outside
    points[1] = [[80, 10, 0.6], [90, 11, 0.1], [95, 12, 0.35]]  # the second one is unsure
    return boxes_of(path, keypoints=points, keypoint_names=NAMES, skeleton=((0, 1), (0, 2)))


def write(form: str, out: Path, *predictions: Prediction) -> Path:
    writer = open_labels(form, out, 0.3)
    for prediction in predictions:
        writer.add("", prediction)
    writer.close()
    return out / form


def converted(source: Source) -> dict[str, Any]:
    ((name, part),) = source.parts.items()
    return convert(source, {name: part}, lambda _, item: part.name(item))[name][0].to_coco("x")


READERS: dict[str, Callable[[Path], Source]] = {
    "coco": lambda folder: read_coco_export(folder),
    "yolo": lambda folder: read_yolo(folder / "data.yaml"),
    "labelme": lambda folder: read_labelme(folder),
}
EXPECTED = np.array([[10.5, 20.25, 49.5, 49.75], [70, 5, 40.125, 35], [0, 0, 9, 9]])


@pytest.mark.parametrize("form", READERS)
def test_boxes_come_back(form, photo, tmp_path):
    data = converted(READERS[form](write(form, tmp_path, boxes_of(photo))))
    np.testing.assert_allclose([row["bbox"] for row in data["annotations"]], EXPECTED, atol=1e-3)
    names = {category["id"]: category["name"] for category in data["categories"]}
    assert [names[row["category_id"]] for row in data["annotations"]] == ['do"g & <co>', "cat", 'do"g & <co>']


@pytest.mark.parametrize("form", READERS)
def test_masks_come_back(form, photo, tmp_path):
    prediction = masks_of(photo)
    data = converted(READERS[form](write(form, tmp_path, prediction)))
    assert prediction.masks is not None
    for row, mask in zip(data["annotations"][:2], prediction.masks):
        rle = row["segmentation"]
        if isinstance(rle, list):
            rle = coco_masks.merge(coco_masks.frPyObjects(rle, *SIZE))
        again = coco_masks.decode(rle).astype(bool)
        overlap = (again & mask).sum() / (again | mask).sum()
        assert overlap == 1 if form == "coco" else overlap > 0.93
    assert len(data["annotations"]) == 3 and data["annotations"][2]["bbox"] == pytest.approx([0, 0, 9, 9])


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_keypoints_come_back(form, photo, tmp_path):
    data = converted(READERS[form](write(form, tmp_path, points_of(photo))))
    np.testing.assert_allclose([row["bbox"] for row in data["annotations"]], EXPECTED, atol=1e-3)
    points = [row["keypoints"] for row in data["annotations"]]
    expected = np.array([[20, 30, 2, 25.5, 31, 2, 0, 0, 0], [80, 10, 2, 0, 0, 0, 95, 12, 2], [0] * 9])
    np.testing.assert_allclose(points, expected, atol=1e-3)
    assert data["categories"][0]["keypoints"] == list(NAMES)


@pytest.mark.parametrize("make", [boxes_of, masks_of, points_of])
def test_a_coco_file_that_training_takes(make, photo, tmp_path):
    prediction = replace(make(photo), track_ids=np.array([5, -1, 0, 1]))
    folder = write("coco", tmp_path, prediction, replace(make(photo), name="b").filter(0.95))
    file = folder / "annotations" / "train.json"
    assert check_coco(file, folder / "images").faults == []
    data = json.loads(file.read_text())
    assert [image["file_name"] for image in data["images"]] == ["a.png", "b.png"]
    assert [(row["id"], row["score"], row.get("track_id")) for row in data["annotations"]] == [
        (1, 0.9, 5),
        (2, 0.75, None),
        (3, 0.5, 0),
    ]
    assert (folder / "images" / "b.png").read_bytes() == photo.read_bytes()


def test_yolo_metadata(photo, tmp_path, caplog):
    folder = write("yolo", tmp_path, points_of(photo))
    text = (folder / "data.yaml").read_text()
    assert "kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]" in text and "val" not in text
    both = replace(points_of(photo), masks=masks_of(photo).masks)
    write("yolo", tmp_path / "both", both)
    assert "not both: the keypoints are written" in caplog.text
    assert (tmp_path / "both/yolo/labels/train/a.txt").read_text() == (folder / "labels/train/a.txt").read_text()


def test_a_labelme_file(photo, tmp_path):
    folder = write("labelme", tmp_path, replace(points_of(photo), track_ids=np.array([5, -1, -1, -1])))
    data = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert data["imagePath"] == "a.png" and (folder / "a.png").is_file()
    assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (*SIZE, None)
    kinds = [(shape["shape_type"], shape["label"], shape["group_id"], shape["description"]) for shape in data["shapes"]]
    dog = 'do"g & <co>'
    assert kinds == [
        ("rectangle", dog, 1, "score 0.900, track 5"),
        ("point", "nose", 1, ""),
        ("point", "left_eye", 1, ""),
        ("rectangle", "cat", 2, "score 0.750"),
        ("point", "nose", 2, ""),
        ("point", "right_eye", 2, ""),
        ("rectangle", dog, None, "score 0.500"),
    ]
    shapes = json.loads((write("labelme", tmp_path / "m", masks_of(photo)) / "a.json").read_text())["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["polygon", "mask", "rectangle"]
    assert shapes[1]["points"] == [[72, 8], [107, 37]]  # the first and the last pixel


def image_element(folder: Path) -> ElementTree.Element:
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    (image,) = root.findall("image")
    assert image.attrib == {"id": "0", "name": "a.png", "width": "120", "height": "90"}
    return image


def test_boxes_of_cvat(photo, tmp_path):
    folder = write("cvat", tmp_path, replace(boxes_of(photo), track_ids=np.array([5, -1, -1, -1])))
    first, second, _ = image_element(folder)
    assert (first.tag, first.get("label"), first.get("source")) == ("box", 'do"g & <co>', "auto")
    assert [first.get(key) for key in ("xtl", "ytl", "xbr", "ybr")] == ["10.50", "20.25", "60.00", "70.00"]
    assert [(entry.get("name"), entry.text) for entry in first] == [("score", "0.900"), ("track_id", "5")]
    assert [(entry.get("name"), entry.text) for entry in second] == [("score", "0.750")]
    labels = json.loads((folder / "labels.json").read_text())
    assert [label["name"] for label in labels] == ["cat", 'do"g & <co>']
    assert not list(folder.glob("*.part"))


def test_masks_of_cvat(photo, tmp_path):
    prediction = masks_of(photo)
    polygon, mask, box = image_element(write("cvat", tmp_path, prediction))
    assert (polygon.tag, mask.tag, box.tag) == ("polygon", "mask", "box")
    runs = [int(run) for run in mask.get("rle", "").split(",")]
    left, top, width, height = (int(mask.get(key, "")) for key in ("left", "top", "width", "height"))
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    assert prediction.masks is not None and prediction.masks[1].sum() == inside.sum()
    assert (prediction.masks[1, top : top + height, left : left + width] == inside).all()
    corners = np.array([[float(x) for x in pair.split(",")] for pair in polygon.get("points", "").split(";")])
    assert cv2.contourArea(corners.astype(np.float32)) == pytest.approx(prediction.masks[0].sum(), rel=0.06)


def test_skeletons_of_cvat(photo, tmp_path):
    folder = write("cvat", tmp_path, points_of(photo))
    skeleton = image_element(folder)[0]
    points = skeleton.findall("points")
    assert skeleton.tag == "skeleton" and [point.get("label") for point in points] == list(NAMES)
    assert [point.get("outside") for point in points] == ["0", "0", "1"] and points[1].get("points") == "25.50,31.00"
    drawing = ElementTree.fromstring(f"<svg>{json.loads((folder / 'labels.json').read_text())[0]['svg']}</svg>")
    assert [node.get("data-label-name") for node in drawing.findall("circle")] == list(NAMES)
    assert [(line.get("data-node-from"), line.get("data-node-to")) for line in drawing.findall("line")] == [
        ("1", "2"),
        ("1", "3"),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_an_interrupt_leaves_complete_files(form, photo, tmp_path, monkeypatch):
    """It comes while the outlines of an image are traced, which takes the most time."""
    writer = open_labels(form, tmp_path, 0.3)
    writer.add("", masks_of(photo))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for module in ("cvat.mask_outlines", "labelme.mask_outlines", "yolo.mask_outlines", "coco.encode_rle"):
        monkeypatch.setattr(f"efftasks.runtime.labels.{module}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.add("", replace(masks_of(photo), name="b"))
    writer.close()
    folder = tmp_path / form
    if form == "cvat":
        image_element(folder)
    elif form == "coco":
        assert len(json.loads((folder / "annotations/train.json").read_text())["images"]) == 1
    else:  # an image without a label file counts as one without objects
        assert not list(folder.rglob("b.*"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_frame_is_written_as_an_image(form, tmp_path):
    pixels = np.full((*SIZE, 3), 77, np.uint8)
    frame = replace(boxes_of(Path("film_000003.png")), image=pixels, frame=3)
    (image,) = (path for path in write(form, tmp_path, frame).rglob("film_000003.jpg"))
    assert np.abs(cv2.imread(str(image)).astype(int) - 77).max() <= 2


@pytest.mark.parametrize("form", FORMATS)
def test_label_maps_are_refused_and_leave_nothing(form, photo, tmp_path):
    labels = Prediction.of_labels(str(photo), np.zeros(SIZE, np.uint8), classes=("sea",), category_ids=(0,), size=SIZE)
    writer = open_labels(form, tmp_path, 0.3)
    with pytest.raises(UserError, match="got a model that gives label maps alone"):
        writer.add("", labels)
    writer.close()
    check_folder(form, tmp_path)


def test_labels_are_not_replaced(photo, tmp_path):
    write("labelme", tmp_path, boxes_of(photo))
    with pytest.raises(
        UserError, match=r"labelme: has files already, and labels may have been corrected; give another"
    ):
        check_folder("labelme", tmp_path)


def test_supervision_reads_them(photo, tmp_path):
    sv = pytest.importorskip("supervision")
    prediction = masks_of(photo)
    yolo, coco = write("yolo", tmp_path, prediction), write("coco", tmp_path, prediction)
    sets = [
        sv.DetectionDataset.from_yolo(
            str(yolo / "images/train"), str(yolo / "labels/train"), str(yolo / "data.yaml"), force_masks=True
        ),
        sv.DetectionDataset.from_coco(str(coco / "images"), str(coco / "annotations/train.json"), force_masks=True),
    ]
    assert prediction.masks is not None
    for data in sets:
        assert list(data.classes) == ["cat", 'do"g & <co>']
        ((_, _, detections),) = data
        assert detections.class_id.tolist()[:2] == [1, 0]
        for mask, again in zip(prediction.masks[:2], np.asarray(detections.mask, bool)):
            assert (mask & again).sum() / (mask | again).sum() > 0.85  # it fills polygons with their border
