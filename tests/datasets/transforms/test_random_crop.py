"""Zooming out and cropping: what mmdet's own transforms give, and everything that is annotated goes along."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Expand, MinIoURandomCrop
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.random_crop import RandomIoUCrop, RandomZoomOut

BOXES: list[list[float]] = [[5.0, 5, 45, 35], [30, 20, 70, 55], [50, 6, 75, 30], [60, 40, 78, 58]]


def picture(boxes: list[list[float]] = BOXES, height: int = 60, width: int = 80) -> dict[str, Any]:
    """An image whose first two channels are x and y of each pixel, so that a crop says which it is."""
    y, x = np.mgrid[:height, :width]
    return dict(
        img=np.stack([x, y, np.full_like(x, 99)], axis=-1).astype(np.uint8),
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
    )


def window_of(results: dict[str, Any]) -> list[int]:
    """The window, xyxy, of a crop of :func:`picture`."""
    (left, top), (right, bottom) = results["img"][0, 0, :2].tolist(), results["img"][-1, -1, :2].tolist()
    return [left, top, right + 1, bottom + 1]


@pytest.mark.parametrize("seed", range(12))
def test_zooming_out_is_mmdets(seed: int) -> None:
    outputs = []
    for transform in (Expand(mean=(7, 7, 7), to_rgb=False, ratio_range=(1, 4), prob=0.5), RandomZoomOut(fill=7)):
        np.random.seed(seed)
        outputs.append(transform(picture()))
    expected, actual = outputs
    np.testing.assert_array_equal(actual["img"], expected["img"])
    assert actual["img_shape"] == expected["img_shape"]
    torch.testing.assert_close(actual["gt_bboxes"].tensor, expected["gt_bboxes"].tensor)


def test_all_that_is_annotated_is_zoomed_out_by_hand() -> None:
    before = picture([[10.0, 20, 30, 50]])
    mask = np.zeros((60, 80), np.uint8)
    mask[20:50, 10:30] = 1
    before.update(
        gt_masks=BitmapMasks(mask[None], 60, 80),
        gt_seg_map=mask.copy(),
        gt_keypoints=np.array([[[20, 35, 2], [0, 0, 0]]], np.float32),
        gt_area_shares=np.array([0.5], np.float32),
    )
    np.random.seed(1)
    after = RandomZoomOut(ratio=(2, 2), prob=1.0)(before)
    assert after["img_shape"] == after["img"].shape[:2] == after["gt_seg_map"].shape == (120, 160)
    ys, xs = np.nonzero(after["img"][..., 2])
    left, top = int(xs.min()), int(ys.min())
    assert (left, top) != (0, 0) and (xs.max() - left, ys.max() - top) == (79, 59)
    assert after["gt_bboxes"].tensor.tolist() == [[10 + left, 20 + top, 30 + left, 50 + top]]
    assert after["gt_keypoints"].tolist() == [[[20 + left, 35 + top, 2], [left, top, 0]]]
    expected = np.full((120, 160), 255, np.uint8)
    expected[top : top + 60, left : left + 80] = mask
    np.testing.assert_array_equal(after["gt_seg_map"], expected)
    np.testing.assert_array_equal(after["gt_masks"].masks[0], expected == 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_window_keeps_what_mmdet_keeps(seed: int) -> None:
    """Of the windows that mmdet draws, and of ours, the boxes are those that the rule gives by itself."""
    for transform in (MinIoURandomCrop(), RandomIoUCrop(prob=1.0)):
        np.random.seed(seed)
        after = transform(picture())
        left, top, right, bottom = window_of(after)
        expected = []
        for i, (x1, y1, x2, y2) in enumerate(BOXES):
            if left < (x1 + x2) / 2 < right and top < (y1 + y2) / 2 < bottom:
                box = [max(x1, left) - left, max(y1, top) - top, min(x2, right) - left, min(y2, bottom) - top]
                expected.append((i, box))
        assert after["gt_bboxes_labels"].tolist() == [i for i, _ in expected]
        np.testing.assert_allclose(after["gt_bboxes"].tensor.numpy(), [box for _, box in expected])


def test_windows_are_spread_as_mmdets() -> None:
    """Sides, places and numbers of objects of many crops: means to 3.5 standard errors of their difference."""
    rows: dict[str, list[list[float]]] = dict(mmdet=[], ours=[])
    np.random.seed(0)
    for name, transform in (("mmdet", MinIoURandomCrop()), ("ours", RandomIoUCrop(prob=1.0))):
        for _ in range(600):
            after = transform(picture([[10.0, 10, 70, 50], [30, 20, 60, 40]]))
            left, top, right, bottom = window_of(after)
            whole = (right - left, bottom - top) == (80, 60)
            rows[name].append([left, top, right - left, bottom - top, len(after["gt_bboxes_labels"]), whole])
    one, other = np.array(rows["mmdet"]), np.array(rows["ours"])
    errors = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    assert (np.abs(one.mean(0) - other.mean(0)) < 3.5 * errors).all()
    np.testing.assert_allclose(other.std(0)[:4], one.std(0)[:4], rtol=0.15)


def test_the_share_of_crops() -> None:
    np.random.seed(0)
    for prob in (0.0, 0.5):
        crops = [RandomIoUCrop(prob=prob, min_ious=())(picture())["img_shape"] != (60, 80) for _ in range(400)]
        assert np.mean(crops) == pytest.approx(prob / 2, abs=0.07)  # the other half of them draws "no crop"


def test_crowd_regions_stay_and_do_not_hold_up_a_crop() -> None:
    before = picture([[0.0, 0, 80, 60], [30, 20, 50, 40]])
    before["gt_ignore_flags"][0] = True
    np.random.seed(0)
    crop = RandomIoUCrop(prob=1.0, min_ious=(0.1,))
    cropped = 0
    for _ in range(50):
        after = crop({**before, "gt_bboxes": before["gt_bboxes"].clone()})
        height, width = after["img_shape"]
        cropped += (height, width) != (60, 80)
        assert after["gt_bboxes_labels"].tolist() == [0, 1] and after["gt_ignore_flags"].tolist() == [True, False]
        assert after["gt_bboxes"].tensor[0].tolist() == [0, 0, width, height]
    assert cropped > 20


def test_an_image_without_objects_is_cropped_too() -> None:
    np.random.seed(0)
    crop = RandomIoUCrop(prob=1.0)
    shapes = {crop(picture([]))["img_shape"] for _ in range(20)}
    assert len(shapes) > 10


def test_everything_is_cropped_to_the_window() -> None:
    mask = np.zeros((1, 60, 80), np.uint8)
    mask[0, 20:40, 30:60] = 1
    np.random.seed(3)
    crop = RandomIoUCrop(prob=1.0, min_ious=())
    for _ in range(20):
        before = picture([[30.0, 20, 60, 40]])
        points = np.array([[[31, 21, 2], [59, 39, 2]]], np.float32)
        before.update(gt_masks=BitmapMasks(mask, 60, 80), gt_seg_map=mask[0].copy(), gt_keypoints=points)
        after = crop(before)
        left, top, right, bottom = window_of(after)
        np.testing.assert_array_equal(after["gt_masks"].masks, mask[:, top:bottom, left:right])
        np.testing.assert_array_equal(after["gt_seg_map"], mask[0, top:bottom, left:right])
        moved = after["gt_keypoints"][0]
        np.testing.assert_allclose(moved[:, :2], [[31 - left, 21 - top], [59 - left, 39 - top]])
        inside = [left <= x < right and top <= y < bottom for x, y in ((31, 21), (59, 39))]
        assert (moved[:, 2] > 0).tolist() == inside


def test_wrong_arguments() -> None:
    wrong: list[tuple[type, str, Any]] = [
        (RandomZoomOut, "ratio", (0.5, 2)),
        (RandomZoomOut, "prob", 2),
        (RandomIoUCrop, "prob", -1),
        (RandomIoUCrop, "min_ious", (0.5, 3)),
        (RandomIoUCrop, "min_size", 1.5),
    ]
    for kind, name, value in wrong:
        with pytest.raises(ValueError, match=f"{name}: got"):
            kind(**{name: value})
