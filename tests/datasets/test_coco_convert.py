from __future__ import annotations

import numpy as np
import pytest

from efftasks.annotations.coco import rle_counts
from efftasks.datasets.coco_convert import Conversion, Report, Shape, UnreadableLabel, split_names
from efftasks.imaging.rle import decode_rle, encode_rle
from efftasks.structures.errors import UserError

CATEGORIES = [{"name": "cat"}, {"name": "dog"}]


def only(shape: Shape, size: tuple[int, int] = (100, 50)) -> tuple[dict, Report]:
    result = Conversion(CATEGORIES)
    result.add_image("a.jpg", *size, [shape])
    return (result.annotations or [{}])[0], result.report


def test_a_box_by_hand():
    row, _ = only(Shape(1, "x:1", [10, 5, 30, 25]))
    assert (row["bbox"], row["area"], row["category_id"], row["iscrowd"]) == ([10, 5, 20, 20], 400, 2, 0)
    assert "segmentation" not in row and "keypoints" not in row


def test_boxes_are_cut_and_those_without_area_left_out():
    row, report = only(Shape(0, "x:1", [-20, 10, 30, 70]))
    assert row["bbox"] == [0, 10, 30, 40] and list(report.notes.values()) == [["x:1"]]
    for box in ([10, 10, 10, 20], [120, 10, 150, 20]):
        row, report = only(Shape(0, "x:2", box))
        assert not row and list(report.skipped.values()) == [["x:2"]]


def test_parts_of_one_object_make_one_box_and_one_area():
    row, _ = only(Shape(0, "x", polygons=[[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 40, 20, 40, 30]]))
    assert row["bbox"] == [0, 0, 40, 30] and row["area"] == 100 + 100 and len(row["segmentation"]) == 2


def test_run_lengths_give_the_box_that_is_missing():
    mask = np.zeros((50, 100), bool)
    mask[7:20, 30:41] = True
    row, _ = only(Shape(0, "x", rle=encode_rle(mask)))
    assert row["bbox"] == [30, 7, 11, 13] and row["area"] == 11 * 13
    assert (decode_rle(row["segmentation"]) == mask).all()
    plain = {"size": [50, 100], "counts": rle_counts(encode_rle(mask)["counts"]).tolist()}
    assert only(Shape(0, "x", rle=plain))[0]["bbox"] == [30, 7, 11, 13]


@pytest.mark.parametrize("rle", [{"size": [50, 99], "counts": [4950]}, {"size": [50, 100], "counts": "?"}, {}])
def test_broken_run_lengths_take_their_image_out(rle):
    result = Conversion(CATEGORIES)
    with pytest.raises(UnreadableLabel, match=r"run-length masks .* \(x:2\)"):
        result.add_image("a.jpg", 100, 50, [Shape(0, "x:1", [1, 1, 5, 5]), Shape(0, "x:2", [1, 1, 5, 5], rle=rle)])
    assert result.images == [] and result.annotations == []


def test_keypoints_outside_their_image_are_not_labeled():
    points = [10, 10, 2, 100.5, 20, 1, 130, 20, 2, 0, 0, 0]
    row, report = only(Shape(0, "x", [5, 5, 60, 40], keypoints=points))
    assert row["keypoints"] == [10, 10, 2, 100.5, 20, 1, 0, 0, 0, 0, 0, 0] and row["num_keypoints"] == 2
    assert list(report.notes.values()) == [["x"]]


def test_the_report_counts_images_apart_from_objects():
    report = Report()
    for number in range(5):
        report.remove("images that cannot be read", f"{number}.jpg")
    report.skip("boxes", "a:1")
    report.warn("look at this")
    report.warn("look at this")
    lines = report.render_lines(examples=2)
    assert lines[0] == "WARNING: look at this" and lines.count(lines[0]) == 1
    assert "images taken out (5):" in lines
    assert "  - 5 x images that cannot be read: 0.jpg, 1.jpg, ... and 3 more" in lines


def test_nothing_left_is_an_error():
    report = Report()
    report.remove("images that cannot be read", "a.jpg is empty")
    with pytest.raises(UserError, match=r"no image could be converted: images that cannot be read \(a.jpg is empty\)"):
        Conversion(CATEGORIES, report).to_coco("yolo")


@pytest.mark.parametrize("text", ["", " , ", "a,a"])
def test_class_lists_of_the_command_line(text):
    assert split_names("a, b ,c") == ["a", "b", "c"] and split_names(None) is None
    with pytest.raises(UserError, match="--classes"):
        split_names(text)
