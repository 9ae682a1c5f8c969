"""Two images in one: pixels by hand, and the objects of both."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import CachedMixUp
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.object_mixup import ObjectMixUp


def picture(color: int, objects: int = 1, size: tuple[int, int] = (40, 60), **more: Any) -> dict[str, Any]:
    boxes = torch.tensor([[float(color % 20), 5, 30, 25]] * objects).reshape(-1, 4)
    return dict(
        img=np.full((*size, 3), color, np.uint8),
        img_shape=size,
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.full(objects, color),
        gt_ignore_flags=np.full(objects, color == 99),
        **more,
    )


def test_half_of_each_as_mmdet_has_it() -> None:
    mixup = ObjectMixUp(prob=1.0)
    reference = CachedMixUp(img_scale=(60, 40), ratio_range=(1.0, 1.0), flip_ratio=1.0, prob=1.0)
    for transform in (mixup, reference):
        first = transform(picture(99))
        assert (first["img"] == 99).all() and len(first["gt_bboxes"]) == 1, "there was nothing to mix with"
    for seed in range(20):  # until mmdet draws the other one, not the image itself
        np.random.seed(seed)
        expected = reference(picture(200))
        if 99 in expected["gt_bboxes_labels"]:
            break
    actual = mixup(picture(200))
    np.testing.assert_array_equal(actual["img"], expected["img"])
    assert actual["img"].dtype == np.uint8 and (actual["img"] == 149).all()
    torch.testing.assert_close(actual["gt_bboxes"].tensor, expected["gt_bboxes"].tensor)
    assert actual["gt_bboxes_labels"].tolist() == expected["gt_bboxes_labels"].tolist() == [200, 99]
    assert actual["gt_ignore_flags"].tolist() == expected["gt_ignore_flags"].tolist() == [False, True]


def test_masks_keypoints_and_labels_of_both() -> None:
    def annotated(color: int, left: int) -> dict[str, Any]:
        mask = np.zeros((40, 60), np.uint8)
        mask[5:25, left:30] = 1
        points = np.array([[[left, 5, 2]]], np.float32)
        more = dict(gt_masks=BitmapMasks(mask[None], 40, 60), gt_seg_map=mask * 3, gt_keypoints=points)
        return picture(color, keypoint_mirror=(0,), **more)

    mixup = ObjectMixUp(prob=1.0)
    mixup(annotated(100, 10))
    after = mixup(annotated(50, 20))
    assert after["gt_masks"].masks.sum((1, 2)).tolist() == [200, 400]
    assert after["gt_keypoints"].tolist() == [[[20, 5, 2]], [[10, 5, 2]]]
    expected = np.zeros((40, 60), np.uint8)
    expected[5:25, 10:20], expected[5:25, 20:30] = 255, 3  # where they differ nobody knows
    np.testing.assert_array_equal(after["gt_seg_map"], expected)


def test_images_without_objects_are_not_mixed_in() -> None:
    mixup = ObjectMixUp(prob=1.0)
    mixup(picture(10, objects=0))
    assert (mixup(picture(50))["img"] == 50).all()
    mixed = mixup(picture(30, objects=0))
    assert (mixed["img"] == 40).all() and mixed["gt_bboxes_labels"].tolist() == [50]


def test_what_is_kept_is_not_mixed_and_not_changed_later() -> None:
    mixup = ObjectMixUp(prob=1.0, cache=3)
    for color in range(10, 100, 10):
        mixup(picture(color))["img"][:] = 7
        assert mixup.cache.tiles[-1].objects.labels.tolist() == [color]
        assert (mixup.cache.tiles[-1].image == color).all()
    assert len(mixup.cache.tiles) == 3


def test_the_share_of_mixtures() -> None:
    np.random.seed(0)
    mixup = ObjectMixUp(prob=0.25)
    mixed = [len(mixup(picture(50))["gt_bboxes"]) == 2 for _ in range(800)]
    assert np.mean(mixed) == pytest.approx(0.25, abs=0.05)


def test_wrong_arguments_and_sizes() -> None:
    with pytest.raises(ValueError, match="prob: got 2"):
        ObjectMixUp(prob=2)
    with pytest.raises(ValueError, match="cache: got 0"):
        ObjectMixUp(cache=0)
    mixup = ObjectMixUp(prob=1.0)
    mixup(picture(1))
    with pytest.raises(ValueError, match=r"got images of \(40, 60\) and \(20, 60\) .* put a RandomWarp or FitImage"):
        mixup(picture(2, size=(20, 60)))
