"""From a data set's entries to arrays, with masks filled as COCO's own tools fill them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from efftasks.datasets.coco_masks import decode_mask
from efftasks.datasets.transforms.load_objects import LoadObjects
from efftasks.structures.errors import UserError

RING = np.pad(np.pad(np.zeros((2, 2), np.uint8), 1, constant_values=1), ((2, 2), (3, 5)))  # 8 x 12, with a hole
SQUARE = [1, 2, 5, 2, 5, 6, 1, 6]


def info(*instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    return dict(img_path="a.png", img_shape=(8, 12), instances=list(instances), **more)


def instance(box=(1, 2, 5, 6), label=0, crowd=0, **more: Any) -> dict[str, Any]:
    return dict(bbox=list(box), bbox_label=label, ignore_flag=crowd, id=7, **more)


def test_boxes_labels_flags_and_area_shares() -> None:
    found = LoadObjects()(info(instance(label=2, area=12.0), instance(crowd=1), instance((0, 0, 2, 2), area=0)))
    assert found["gt_bboxes"].tensor.tolist() == [[1, 2, 5, 6], [1, 2, 5, 6], [0, 0, 2, 2]]
    assert found["gt_bboxes_labels"].tolist() == [2, 0, 0] and found["gt_bboxes_labels"].dtype == np.int64
    assert found["gt_ignore_flags"].tolist() == [False, True, False] and found["gt_ignore_flags"].dtype == bool
    assert found["gt_area_shares"].tolist() == [0.75, 1, 1]
    assert "gt_masks" not in found and "gt_keypoints" not in found


def test_every_form_of_mask() -> None:
    packed = coco_mask.encode(np.asfortranarray(RING))
    flat = RING.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    plain = np.diff(np.concatenate([[0], edges])).tolist()
    found = LoadObjects(masks=True)(
        info(
            instance(mask=dict(size=[8, 12], counts=packed["counts"].decode())),
            instance(mask=dict(size=[8, 12], counts=plain), crowd=1),
            instance(mask=[SQUARE, [8, 0, 10, 0, 10, 1, 8, 1]]),  # two parts
            instance(),
            instance(mask=[[3, 4, 4, 4, 4, 5, 3, 5]]),  # one pixel
            instance(mask=[[3, 4, 4, 4]]),  # no inside
        )
    )["gt_masks"]
    assert (found.height, found.width, len(found)) == (8, 12, 6)
    masks = found.masks
    np.testing.assert_array_equal(masks[0], RING)
    np.testing.assert_array_equal(masks[1], RING)
    parts = np.zeros((8, 12), np.uint8)
    parts[2:6, 1:5] = 1
    parts[0, 8:10] = 1
    np.testing.assert_array_equal(masks[2], parts)
    assert masks[3:].sum((1, 2)).tolist() == [0, 1, 0] and masks[4, 4, 3] == 1


def test_keypoints_and_objects_without_them() -> None:
    rows = [[1.5, 2.0, 2], [0, 0, 0]]
    found = LoadObjects(keypoints=True)(info(instance(keypoints=rows), instance(), keypoint_mirror=(1, 0)))
    assert found["gt_keypoints"].tolist() == [rows, [[0, 0, 0], [0, 0, 0]]]
    assert found["gt_keypoints"].dtype == np.float32
    assert LoadObjects(keypoints=True)(info(keypoint_mirror=(0, 1, 2)))["gt_keypoints"].shape == (0, 3, 3)


def test_a_data_set_without_keypoints_beside_one_with_them() -> None:
    load = LoadObjects(keypoints=True, num_keypoints=2)
    assert load(info(instance()))["gt_keypoints"].tolist() == [[[0, 0, 0], [0, 0, 0]]]
    assert load(info(instance(), keypoint_mirror=(1, 0)))["gt_keypoints"].shape == (1, 2, 3)
    with pytest.raises(UserError, match=r"num_keypoints: got 2, expected 3, as a\.png has"):
        load(info(instance(), keypoint_mirror=(0, 1, 2)))
    with pytest.raises(UserError, match=r"a\.png: its data set has no keypoints"):
        LoadObjects(keypoints=True)(info(instance()))
    with pytest.raises(ValueError, match="num_keypoints: got 2"):
        LoadObjects(num_keypoints=2)


def test_without_annotated_objects_the_whole_image_is_ignored() -> None:
    entry = dict(img_path="a.png", img_shape=(8, 12))
    found = LoadObjects(masks=True, keypoints=True, num_keypoints=1)(entry)
    assert found["gt_bboxes"].tensor.tolist() == [[0, 0, 12, 8]]
    assert found["gt_ignore_flags"].tolist() == [True]
    assert (found["gt_masks"].masks == 1).all() and found["gt_keypoints"].shape == (1, 1, 3)
    assert len(LoadObjects()(info())["gt_bboxes"]) == 0  # it is annotated: nothing is in it


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ([[1, 2, 5, 2, 5, 6, 1]], "a polygon has 7 numbers"),
        (dict(size=[9, 12], counts=[108]), "are of size \\[9, 12\\], expected the image's \\[8, 12\\]"),
        (dict(size=[8, 12], counts=[50, 3]), "cover 53 pixels, expected 96"),
        (dict(size=[8, 12], counts="xyz!!"), "no compressed run lengths"),
        (dict(size=[8, 12]), "has counts of None"),
    ],
)
def test_broken_masks_are_named(mask: Any, said: str) -> None:
    with pytest.raises(UserError, match="a.png: the mask of annotation 7 cannot be used: .*" + said):
        LoadObjects(masks=True)(info(instance(mask=mask)))


@pytest.mark.parametrize("name", ["coco_mini", "coco_pose", "nuclei"])
def test_masks_of_real_data_are_cocos_to_the_pixel(real_data: Path, name: str) -> None:
    data = json.loads((real_data / name / "annotations" / "val.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"][:300]:
        mask, size = annotation["segmentation"], sizes[annotation["image_id"]]
        runs = mask
        if isinstance(mask, list) or isinstance(mask["counts"], list):
            runs = coco_mask.frPyObjects(mask, *size)
        expected = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs)
        left, top, crop = decode_mask(mask, size)
        found = np.zeros(size, np.uint8)
        found[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(found, expected)
