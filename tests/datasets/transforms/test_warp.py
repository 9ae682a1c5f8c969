"""Everything in an image moves together, and what the frame cuts is cut as it should be."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.affine import affine_about_center, warp_boxes
from efftasks.datasets.transforms.warp import drop_outside, warp_objects

STAY = np.array([[1.0, 0, 0], [0, 1, 0]])


def scene(boxes: list[list[float]], masks: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """Objects in a frame of 40 x 60 pixels, whose labels are 0, 1, 2..."""
    results = dict(
        img=np.zeros((40, 60, 3), np.uint8),
        img_shape=(40, 60),
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
        gt_area_shares=np.linspace(0.5, 1, len(boxes), dtype=np.float32),
    )
    if masks is not None:
        results["gt_masks"] = BitmapMasks(masks, 40, 60)
    return results | more


def move(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y]])


def test_maps_by_hand() -> None:
    half = affine_about_center((100, 200), degrees=0, shift=(0, 0), scale=0.5)
    np.testing.assert_allclose(warp_boxes(np.array([[0.0, 0, 200, 100]]), half), [[50, 25, 150, 75]])
    turn = affine_about_center((100, 100), degrees=90, shift=(10, 0), scale=1)
    # The top left corner goes to the top right, and everything 10 px to the right.
    np.testing.assert_allclose(warp_boxes(np.array([[0.0, 0, 20, 10]]), turn), [[100, 0, 110, 20]], atol=1e-9)


def test_staying_changes_nothing() -> None:
    masks = (np.random.default_rng(0).random((2, 40, 60)) > 0.5).astype(np.uint8)
    before = scene([[0, 0, 60, 40], [3.5, 2.25, 9, 8]], masks, gt_seg_map=masks[0] * 7)
    before["img"] = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    after = warp_objects(dict(before), STAY, (40, 60), fill=9)
    for key in ("img", "gt_seg_map", "gt_bboxes_labels", "gt_area_shares"):
        np.testing.assert_array_equal(after[key], before[key])
    np.testing.assert_array_equal(after["gt_masks"].masks, masks)
    assert after["gt_bboxes"].tensor.tolist() == [[0, 0, 60, 40], [3.5, 2.25, 9, 8]]


def test_a_larger_frame_is_filled() -> None:
    after = warp_objects(scene([], gt_seg_map=np.zeros((40, 60), np.uint8)), move(2, 3), (50, 70), fill=9)
    assert after["img_shape"] == (50, 70) and len(after["gt_bboxes"]) == 0
    outside = np.ones((50, 70), bool)
    outside[3:43, 2:62] = False
    assert (after["img"][outside] == 9).all() and (after["img"][~outside] == 0).all()
    assert (after["gt_seg_map"][outside] == 255).all() and (after["gt_seg_map"][~outside] == 0).all()


def test_cut_boxes_and_what_is_dropped() -> None:
    boxes: list[list[float]] = [
        [10, 10, 30, 20],  # half of it stays
        [0, 0, 21, 10],  # a twenty-first
        [50, 0, 60, 10],  # all
        [0, 20, 20.5, 30],  # half a pixel wide
        [0, 20, 20, 30],  # nothing
        [0, 0, 25, 40],  # a fifth
        [0, 0, 21, 40],  # a crowd region, a twenty-first
        [0, 0, 20, 40],  # a crowd region, nothing
    ]
    before = scene(boxes)
    before["gt_ignore_flags"][6:] = True
    after = warp_objects(before, move(-20, 0), (40, 60), fill=0)
    assert after["gt_bboxes_labels"].tolist() == [0, 2, 5, 6]
    assert after["gt_bboxes"].tensor.tolist() == [[0, 10, 10, 20], [30, 0, 40, 10], [0, 0, 5, 40], [0, 0, 1, 40]]
    assert after["gt_ignore_flags"].tolist() == [False, False, False, True]
    np.testing.assert_allclose(after["gt_area_shares"], np.linspace(0.5, 1, 8)[[0, 2, 5, 6]], rtol=1e-6)
    strict = warp_objects(scene(boxes), move(-20, 0), (40, 60), fill=0, min_visible=0.5)
    assert strict["gt_bboxes_labels"].tolist() == [0, 2]


def test_cut_objects_get_the_box_of_what_is_left_of_their_mask() -> None:
    masks = np.zeros((5, 40, 60), np.uint8)
    masks[0, 10:30, 10:14] = masks[0, 26:30, 10:40] = 1  # an L whose upright is cut off
    masks[1, 0:10, 30:40] = 1  # not cut: its box is as annotated, not that of the pixels
    masks[3, 10:30, 10:14] = 1  # what is in the frame is not of its mask
    boxes: list[list[float]] = [
        [10, 10, 40, 30],
        [29.6, 0, 40.2, 10],
        [10, 10, 40, 30],
        [10, 10, 40, 30],
        [10, 10, 40, 30],
    ]
    before = scene(boxes, masks)
    before["gt_ignore_flags"][4] = True
    after = warp_objects(before, move(-20, 0), (40, 60), fill=0)
    assert after["gt_bboxes_labels"].tolist() == [0, 1, 2, 4]
    found = after["gt_bboxes"].tensor
    assert found[0].tolist() == [0, 26, 20, 30]
    np.testing.assert_allclose(found[1], [9.6, 0, 20.2, 10], atol=1e-5)
    assert found[2].tolist() == found[3].tolist() == [0, 10, 20, 30]  # no mask, no news
    assert after["gt_masks"].masks.sum((1, 2)).tolist() == [80, 100, 0, 0]


def test_turned_boxes_are_tight() -> None:
    masks = np.zeros((1, 40, 60), np.uint8)
    y, x = np.mgrid[:40, :60] + 0.5
    masks[0] = np.hypot(x - 30, y - 20) < 10  # a disc: the same however it is turned
    matrix = affine_about_center((40, 60), degrees=45, shift=(0, 0), scale=1)
    with_mask = warp_objects(scene([[20, 10, 40, 30]], masks), matrix, (40, 60), fill=0)
    np.testing.assert_allclose(with_mask["gt_bboxes"].tensor, [[20, 10, 40, 30]], atol=1)
    without = warp_objects(scene([[20, 10, 40, 30]]), matrix, (40, 60), fill=0)
    half = 10 * 2**0.5
    np.testing.assert_allclose(without["gt_bboxes"].tensor, [[30 - half, 20 - half, 30 + half, 20 + half]], atol=1e-4)


def test_a_tiny_mask_may_go_but_its_object_stays() -> None:
    masks = np.zeros((1, 40, 60), np.uint8)
    masks[0, 20, 30] = 1
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    after = warp_objects(scene([[29.0, 19, 31, 21]], masks), half, (20, 30), fill=0)
    assert after["gt_bboxes"].tensor.tolist() == [[14.5, 9.5, 15.5, 10.5]] and len(after["gt_masks"]) == 1
    twice = warp_objects(scene([[30.0, 20, 31, 21]], masks), np.array([[2.0, 0, 0], [0, 2, 0]]), (80, 120), fill=0)
    assert twice["gt_masks"].masks[0, 40:42, 60:62].sum() == twice["gt_masks"].masks.sum() == 4


def test_keypoints_outside_are_not_visible() -> None:
    points = np.array([[[25, 5, 2], [19.5, 5, 2], [20, 39.9, 1], [60, 5, 2], [30, 40, 1], [0, 0, 0]]], np.float32)
    after = warp_objects(scene([[10.0, 0, 40, 40]], gt_keypoints=points), move(-20, 0), (40, 40), fill=0)
    found = after["gt_keypoints"][0]
    assert found[:, 2].tolist() == [2, 0, 1, 0, 0, 0]
    np.testing.assert_allclose(found[:, :2], points[0, :, :2] - [20, 0])
    assert found.dtype == np.float32
    assert drop_outside(np.array([[0.0, 0, 2], [3, 1, 2], [2, 2, 2], [-0.1, 1, 1]]), (2, 3))[:, 2].tolist() == [
        2,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("seed", range(30))
def test_image_mask_label_map_and_keypoint_stay_together(seed: int) -> None:
    """A disc that is drawn into all of them is at the same place in all of them afterwards, to half a pixel."""
    rng = np.random.default_rng(seed)
    center, radius = rng.uniform([20, 15], [40, 25]), 6.0
    y, x = np.mgrid[:40, :60] + 0.5
    disc = (np.hypot(x - center[0], y - center[1]) < radius).astype(np.uint8)
    before = scene(
        [[*(center - radius), *(center + radius)]],
        disc[None],
        gt_seg_map=disc,
        gt_keypoints=np.array([[[*center, 2]]], np.float32),
    )
    before["img"] = np.repeat(disc[..., None] * np.uint8(200), 3, axis=2)
    drawn = np.average(np.stack([x, y], -1).reshape(-1, 2), axis=0, weights=disc.reshape(-1))
    scale = rng.uniform(0.25, 2.5)
    size = tuple(np.ceil(np.array([40, 60]) * max(scale, 1) * 1.5).astype(int).tolist())
    shift = (np.array(size[::-1]) - [60, 40]) / 2 + rng.uniform(-3, 3, 2)
    matrix = affine_about_center((40, 60), rng.uniform(-180, 180), tuple(shift), scale)
    after = warp_objects(before, matrix, size, fill=0)
    expected = matrix[:, :2] @ drawn + matrix[:, 2]
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    places = np.stack([x, y], -1).reshape(-1, 2)
    for weights in (after["img"][..., 0], after["gt_masks"].masks[0], after["gt_seg_map"] == 1):
        np.testing.assert_allclose(np.average(places, axis=0, weights=weights.reshape(-1)), expected, atol=0.25)
    np.testing.assert_allclose(after["gt_keypoints"][0, 0, :2], matrix[:, :2] @ center + matrix[:, 2], atol=1e-3)
    assert after["gt_keypoints"][0, 0, 2] == 2
    box = after["gt_bboxes"].tensor[0].numpy()
    middle = matrix[:, :2] @ center + matrix[:, 2]
    np.testing.assert_allclose(box, [*(middle - scale * radius), *(middle + scale * radius)], atol=1 + scale / 2)


def test_shrunk_images_are_averaged() -> None:
    """A fine pattern becomes its mean, not one of its colors."""
    before = scene([])
    before["img"][:, ::2] = 200
    after = warp_objects(before, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (10, 15), fill=0)
    np.testing.assert_allclose(after["img"], 100, atol=1)
