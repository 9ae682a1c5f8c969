"""Keypoints, masks, areas and label maps of COCO files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask

from efftasks.datasets.coco import CocoDetection
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import keypoint_metadata

PERSON = dict(id=1, name="person", keypoints=["nose", "left_hand", "right_hand"], skeleton=[[1, 2], [1, 3]])
DOG = dict(id=2, name="dog")


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-coco-keypoints", scope_name="efftasks")


def annotation(number: int, category: int = 1, **more: Any) -> dict[str, Any]:
    return dict(id=number, image_id=1, category_id=category, bbox=[2, 4, 20, 10], iscrowd=0) | more


def build(
    folder: Path,
    annotations: list[dict[str, Any]],
    categories: tuple[dict[str, Any], ...] = (PERSON, DOG),
    file_name: str = "a.png",
    **kwargs: Any,
) -> CocoDetection:
    image = dict(id=1, file_name=file_name, width=40, height=30)
    (folder / "a.json").write_text(
        json.dumps(dict(images=[image], annotations=annotations, categories=list(categories)))
    )
    return CocoDetection(ann_file="a.json", data_root=str(folder), data_prefix=dict(img="images/"), **kwargs)


def instances(dataset: CocoDetection) -> list[dict[str, Any]]:
    return dataset.get_data_info(0)["instances"]


def test_keypoints_areas_and_what_the_file_says_of_them(tmp_path: Path) -> None:
    rows = [3, 4, 2, 5.5, 6, 1, 0, 0, 0]
    dataset = build(
        tmp_path, [annotation(1, keypoints=rows, area=55), annotation(2), annotation(3, 2), annotation(4, keypoints=[])]
    )
    found = instances(dataset)
    assert found[0]["keypoints"] == [[3, 4, 2], [5.5, 6, 1], [0, 0, 0]] and found[0]["area"] == 55
    assert all("keypoints" not in other and "area" not in other for other in found[1:])
    assert [instance["id"] for instance in found] == [1, 2, 3, 4]
    assert dataset.get_data_info(0)["keypoint_mirror"] == (0, 2, 1)
    said = dataset.metainfo["keypoints"]
    assert said["names"] == ("nose", "left_hand", "right_hand")
    assert said["sigmas"] == (0.026, 0.05, 0.05)  # the nose is COCO's, hands are not
    assert said["flip_pairs"] == ((1, 2),) and said["skeleton"] == ((0, 1), (0, 2))
    again = build(tmp_path, [annotation(1, keypoints=rows)], metainfo=dict(keypoints=said))  # as a checkpoint has it
    assert again.metainfo["keypoints"] == said


def test_the_config_completes_what_the_file_says(tmp_path: Path) -> None:
    said = dict(sigmas=0.1, flip_pairs=[("nose", "left_hand")])
    dataset = build(tmp_path, [annotation(1)], metainfo=dict(keypoints=said))
    assert dataset.metainfo["keypoints"]["sigmas"] == (0.1, 0.1, 0.1)
    assert dataset.get_data_info(0)["keypoint_mirror"] == (1, 0, 2)
    with pytest.raises(UserError, match=r"category 'person' has 3 keypoints, metainfo\.keypoints names 2"):
        build(tmp_path, [annotation(1)], metainfo=dict(keypoints=dict(names=("a", "b"))))


def test_a_config_alone_may_state_them(tmp_path: Path) -> None:
    said = keypoint_metadata(dict(names=("head", "tail"))).to_dict()
    dataset = build(
        tmp_path, [annotation(1, 2, keypoints=[1, 2, 2, 3, 4, 2])], categories=(DOG,), metainfo=dict(keypoints=said)
    )
    assert instances(dataset)[0]["keypoints"] == [[1, 2, 2], [3, 4, 2]]


def test_without_keypoints_there_are_none(tmp_path: Path) -> None:
    dataset = build(tmp_path, [annotation(1, 2, keypoints=[1, 2, 2])], categories=(DOG,))
    assert "keypoints" not in dataset.metainfo and "keypoint_mirror" not in dataset.get_data_info(0)
    assert "keypoints" not in instances(dataset)[0]
    # Categories that are not learned have no say.
    other = build(tmp_path, [annotation(1, 2)], metainfo=dict(classes=("dog",)))
    assert "keypoints" not in other.metainfo


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: annotation 7: 'keypoints' has 6 numbers, expected 9"):
        build(tmp_path, [annotation(7, keypoints=[1, 2, 2, 3, 4, 2])])
    cat = dict(id=3, name="cat", keypoints=["nose", "tail"])
    with pytest.raises(UserError, match="category 'person' has 3 keypoints and category 'cat' has 2"):
        build(tmp_path, [annotation(1)], categories=(PERSON, cat))


def test_boxes_that_are_not_given_come_from_the_mask(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 10:30] = 1
    runs = coco_mask.encode(np.asfortranarray(mask))
    shapes: list[Any] = [
        [[1.5, 2, 8, 2, 8, 9.25], [20, 1, 24, 1, 24, 3]],
        dict(size=[30, 40], counts=runs["counts"].decode()),
    ]
    rows = [annotation(i, segmentation=shape) for i, shape in enumerate(shapes)]
    for row in rows:
        del row["bbox"]
    assert [i["bbox"] for i in instances(build(tmp_path, rows))] == [[1.5, 1, 24, 9.25], [10, 5, 30, 9]]
    rows[1]["bbox"] = None
    assert instances(build(tmp_path, rows))[1]["bbox"] == [10, 5, 30, 9]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (dict(), "annotation 7: neither 'bbox' nor a mask is there"),
        (dict(segmentation=[[1, 2, 3, 4]]), "annotation 7: neither 'bbox' nor a mask is there"),
        (dict(segmentation=dict(size=[1, 1], counts=[1])), r"annotation 7: run lengths are of size \[1, 1\]"),
    ],
)
def test_without_box_and_mask_an_object_is_nowhere(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    row = annotation(7, **more)
    del row["bbox"]
    with pytest.raises(UserError, match=said):
        build(tmp_path, [row])


@pytest.mark.parametrize(
    ("file_name", "expected"), [("train/x_1.png", "gt/train/s_x_1_ids.png"), ("x_1.png", "gt/s_x_1_ids.png")]
)
def test_label_maps_beside_the_objects(tmp_path: Path, file_name: str, expected: str) -> None:
    path = tmp_path / expected
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((30, 40), 1, np.uint8))
    image = tmp_path / "images" / file_name
    image.parent.mkdir(parents=True)
    cv2.imwrite(str(image), np.zeros((30, 40, 3), np.uint8))
    pipeline = [dict(type=name) for name in ("LoadImage", "LoadObjects", "LoadSegMap", "PackObjects")]
    dataset = build(
        tmp_path,
        [annotation(1)],
        file_name=file_name,
        seg_map="gt/{folder}/s_{stem}_ids.png",
        metainfo=dict(semantic_classes=("ground", "sky")),
        pipeline=pipeline,
    )
    assert Path(dataset.get_data_info(0)["seg_map_path"]) == path
    assert dataset.metainfo["semantic_classes"] == ("ground", "sky")
    sample = dataset[0]["data_samples"]
    assert (sample.gt_sem_seg.data == 1).all() and len(sample.gt_instances) == 1


def test_label_maps_need_names_and_known_fields(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seg_map: got 'gt/{stem}.png' without metainfo\.semantic_classes"):
        build(tmp_path, [annotation(1)], seg_map="gt/{stem}.png")
    with pytest.raises(UserError, match=r"seg_map: got 'gt/{name}.png', expected no fields but"):
        build(tmp_path, [annotation(1)], seg_map="gt/{name}.png", metainfo=dict(semantic_classes=("a",)))


def test_real_keypoints(real_data: Path) -> None:
    def read(name: str) -> CocoDetection:
        folder = str(real_data / name)
        return CocoDetection(ann_file="annotations/train.json", data_root=folder, data_prefix=dict(img="images/"))

    tubes = read("glue_tubes")
    assert tubes.metainfo["keypoints"]["names"] == ("head", "tail")
    assert tubes.metainfo["keypoints"]["skeleton"] == ((0, 1),) and tubes.metainfo["keypoints"]["flip_pairs"] == ()
    assert instances(tubes)[0]["keypoints"] == [[509.5, 243.5, 2], [716, 202, 2]]
    persons = read("coco_pose")
    said = persons.metainfo["keypoints"]
    assert len(said["names"]) == 17 and said["sigmas"][:2] == (0.026, 0.025) and len(said["flip_pairs"]) == 8
    rows = [instance for i in range(len(persons)) for instance in persons.get_data_info(i)["instances"]]
    assert len(rows) == 96 and sum(np.array(row["keypoints"])[:, 2].any() for row in rows) == 42
    assert sum(row["ignore_flag"] for row in rows) == 3 and all("mask" in row for row in rows)
