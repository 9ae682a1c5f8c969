"""Small objects go, as mmdet drops them; crowd regions stay."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import FilterAnnotations
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.filter_objects import FilterObjects


def scene(sides: np.ndarray) -> dict[str, Any]:
    """Objects at (2, 3) of these widths and heights, (N, 2)."""
    boxes = np.hstack([np.full((len(sides), 2), (2.0, 3.0)), sides + (2, 3)]).astype(np.float32)
    return dict(
        img=np.zeros((40, 60, 3), np.uint8),
        gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
        gt_masks=BitmapMasks(np.zeros((len(boxes), 40, 60), np.uint8), 40, 60),
    )


@pytest.mark.parametrize("least", [0, 1, 8])
def test_the_same_objects_as_mmdet_drops(least: int) -> None:
    sides = np.random.default_rng(0).integers(0, 40, (200, 2)) / 4  # also exactly as large as the least
    expected = FilterAnnotations(min_gt_bbox_wh=(least, least), keep_empty=False)(scene(sides))
    actual = FilterObjects(min_side=least)(scene(sides))
    assert 0 < len(actual["gt_bboxes_labels"]) < 200
    np.testing.assert_array_equal(actual["gt_bboxes_labels"], expected["gt_bboxes_labels"])
    torch.testing.assert_close(actual["gt_bboxes"].tensor, expected["gt_bboxes"].tensor)
    assert len(actual["gt_masks"]) == len(actual["gt_ignore_flags"]) == len(actual["gt_bboxes_labels"])


def test_all_may_go_but_for_crowd_regions() -> None:
    before = scene(np.array([[3.0, 3], [3, 30], [3, 3], [0, 3]]))
    before["gt_ignore_flags"][2:] = True
    after = FilterObjects(min_side=4)(before)
    assert after["gt_bboxes_labels"].tolist() == [2] and after["gt_ignore_flags"].tolist() == [True]
    assert len(FilterObjects(min_side=4)(scene(np.zeros((0, 2))))["gt_bboxes"]) == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="min_side: got -1"):
        FilterObjects(min_side=-1)
