"""What a COCO file's fields mean, however tools write them; what is broken is told in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import (
    area_of,
    box_of,
    image_size_of,
    is_crowd,
    keypoints_of,
    object_box,
    read_coco,
    segmentation_of,
)
from efftasks.structures.errors import UserError

NAN = math.nan
SQUARE = [1, 2, 5, 2, 5, 6, 1, 6]


def small(**more: Any) -> dict[str, Any]:
    return (
        dict(
            images=[dict(id=1, file_name="a.png", width=12, height=8)],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 5, 5])],
            categories=[dict(id=1, name="cat")],
        )
        | more
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small()), encoding=encoding)
    assert read_coco(tmp_path / "a.json") == small()


@pytest.mark.parametrize("annotations", [{}, dict(annotations=None)])
def test_a_file_without_annotations_has_an_empty_list(tmp_path: Path, annotations: dict) -> None:
    data = {key: value for key, value in small().items() if key != "annotations"} | annotations
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_coco(tmp_path / "a.json")["annotations"] == []


@pytest.mark.parametrize(
    ("key", "entry", "said"),
    [
        ("images", 7, r"images\[1\] is a int, expected an object"),
        ("images", dict(file_name="b.png"), r"images\[1\]: 'id' is missing, expected a whole number or a text"),
        ("images", dict(id=NAN, file_name="b.png"), r"images\[1\]: 'id' is nan"),
        ("images", dict(id=1, file_name="b.png"), "2 images have the id 1, expected ids that occur once"),
        ("annotations", dict(id=5, image_id=1), r"annotations\[1\] \(id 5\): 'category_id' is missing"),
        ("annotations", dict(id=5, image_id=[1], category_id=1), r"annotations\[1\] \(id 5\): 'image_id' is \[1\]"),
        (
            "annotations",
            dict(id=5, image_id=1, category_id="1"),
            r"annotations\[1\] \(id 5\): 'category_id' is '1', expected a whole",
        ),
        ("categories", dict(id=True, name="dog"), r"categories\[1\]: 'id' is True, expected a whole number"),
        ("categories", dict(id=1, name="dog"), "2 categories have the id 1"),
    ],
)
def test_what_joins_the_entries_must_be_there(tmp_path: Path, key: str, entry: Any, said: str) -> None:
    data = small()
    data[key].append(entry)
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"a\.json: " + said):
        read_coco(tmp_path / "a.json")


def test_ids_may_be_texts(tmp_path: Path) -> None:
    data = small(images=[dict(id="a", file_name="a.png")], annotations=[dict(id="x", image_id="a", category_id=1)])
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_coco(tmp_path / "a.json") == data


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 0], [3, 4, 0, 5], [3, 4, -2, 5], [NAN, 1, 2, 3], [1, 2, math.inf, 3], [None] * 4, [], None]
)
def test_boxes_without_size(box: Any) -> None:
    assert box_of(dict(bbox=box)) is None
    # The mask tells where the object is, or else its keypoints do.
    assert object_box(dict(bbox=box, segmentation=[SQUARE])) == (1, 2, 5, 6)
    assert object_box(dict(bbox=box, keypoints=[3, 4, 2, 9, 9, 0, 7, 6, 1])) == (3, 4, 7, 6)
    assert object_box(dict(bbox=box, keypoints=[3, 4, 2, 9, 9, 0, 7, 4, 1])) is None


@pytest.mark.parametrize("box", [["1", "2", "3", "4"], "1 2 3 4", [1, 2, 3], dict(x=1), 7, [[1, 2], [3, 4]]])
def test_boxes_that_are_none(box: Any) -> None:
    with pytest.raises(ValueError, match=r"'bbox' is .*, expected four numbers: x, y, width, height in pixels"):
        box_of(dict(bbox=box))


def test_one_polygon_without_a_list_around_it() -> None:
    points = [SQUARE[i : i + 2] for i in range(0, 8, 2)]
    ways: list[Any] = [SQUARE, [SQUARE], points]
    assert [segmentation_of(dict(segmentation=shape)) for shape in ways] == [[SQUARE]] * 3
    none: list[Any] = [None, [], {}, [[]], [[1, 2, 3, 4]]]
    assert [segmentation_of(dict(segmentation=shape)) for shape in none] == [None] * 5


@pytest.mark.parametrize(
    "shape",
    [
        "square",
        7,
        [["1", "2"] * 3],
        ["1", "2", "3"],
        [[1, 2, NAN, 4, 5, 6]],
        [[1, 2, None, 4, 5, 6]],
        [[1, 2, 1e9, 4, 5, 6]],
        [[[1, 2], [3, 4], [5, 6]]],
        [1, 2, 3, 4, 5, 6, 7],
        dict(counts=[4]),
        dict(size=[2, 2]),
        dict(size=[2, 0], counts=[0]),
        dict(size=4, counts=[4]),
    ],
)
def test_masks_that_are_none(shape: Any) -> None:
    with pytest.raises(ValueError, match="'segmentation'"):
        segmentation_of(dict(segmentation=shape))


@pytest.mark.parametrize("seed", range(5))
def test_the_box_of_run_lengths_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 40), np.uint8)
    y, x, h, w = rng.integers(1, 15, 4)
    mask[y : y + h, x : x + w] = rng.random((h, w)) > 0.7 * (seed % 2)
    mask[:, x] |= seed == 2  # a run that goes through whole columns
    rle = coco_mask.encode(np.asfortranarray(mask))
    left, top, width, height = coco_mask.toBbox(rle).tolist()
    found = object_box(dict(segmentation=dict(size=[30, 40], counts=rle["counts"].decode())))
    assert found == (left, top, left + width, top + height)
    assert object_box(dict(segmentation=dict(size=[30, 40], counts=[1200]))) is None
    with pytest.raises(ValueError, match=r"run lengths are of size \[30, 40\], expected the image's \[40, 30\]"):
        object_box(dict(segmentation=dict(size=[30, 40], counts=[1200])), (40, 30))


def test_keypoints_of_unknown_place_are_not_annotated() -> None:
    assert keypoints_of(dict(keypoints=[1, 2, 2, NAN, NAN, 0, None, None, None]), 3) == [[1, 2, 2], [0] * 3, [0] * 3]
    for broken, said in (
        ([NAN, 1, 2], "has .nan, 1, 2., expected three finite numbers"),
        (["1", 2, 2], "expected three finite"),
        ([1, 2], "has 2 numbers, expected 3"),
        ("1 2 2", "expected a list x1"),
    ):
        with pytest.raises(ValueError, match=f"'keypoints' .*{said}"):
            keypoints_of(dict(keypoints=broken), 1)


def test_crowds_areas_and_sizes() -> None:
    assert [is_crowd(dict(iscrowd=value)) for value in (0, 1, False, True, None, 1.0)] == [0, 1, 0, 1, 0, 1]
    for value in ("0", 2, [1], NAN):
        with pytest.raises(ValueError, match=r"'iscrowd' is .*, expected 0 or 1"):
            is_crowd(dict(iscrowd=value))
    assert [area_of(dict(area=value)) for value in (4, 2.5, 0, -1, NAN, "4", None)] == [4, 2.5, *[None] * 5]
    assert image_size_of(dict(height=8, width=12.0)) == (8, 12)
    for height in (0, -8, NAN, "8", None, [8]):
        assert image_size_of(dict(height=height, width=12)) is None
