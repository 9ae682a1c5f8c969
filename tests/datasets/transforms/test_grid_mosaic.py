"""The mosaic: objects and their boxes stay together."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from efftasks.datasets.transforms.affine import affine_about_centre, warp_boxes
from efftasks.datasets.transforms.grid_mosaic import GridMosaic


def picture(color: int, size: tuple[int, int] = (80, 120)) -> dict:
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[20:60, 30:90] = color
    return dict(
        img=image,
        img_shape=size,
        gt_bboxes=HorizontalBoxes(torch.tensor([[30.0, 20.0, 90.0, 60.0]])),
        gt_bboxes_labels=np.array([color]),
        gt_ignore_flags=np.array([False]),
    )


def test_maps_by_hand() -> None:
    half = affine_about_centre((100, 200), degrees=0, shift=(0, 0), scale=0.5)
    np.testing.assert_allclose(warp_boxes(np.array([[0.0, 0, 200, 100]]), half), [[50, 25, 150, 75]])
    turn = affine_about_centre((100, 100), degrees=90, shift=(10, 0), scale=1)
    # The top left corner goes to the top right, and everything 10 px to the right.
    np.testing.assert_allclose(warp_boxes(np.array([[0.0, 0, 20, 10]]), turn), [[100, 0, 110, 20]], atol=1e-9)


def test_without_a_map_there_are_four_whole_tiles() -> None:
    mosaic = GridMosaic(tile_size=40, max_rotate_degree=0, max_translate_ratio=0, scaling_ratio_range=(1, 1))
    np.random.seed(0)
    for color in (50, 100, 150, 200):
        found = mosaic.transform(picture(color))
    assert found["img"].shape == (80, 120, 3) and found["img_shape"] == (80, 120)
    assert len(found["gt_bboxes"]) == 4
    np.testing.assert_allclose(found["gt_bboxes"].numpy()[0], [15, 10, 45, 30])  # its own, at half the size
    for box, label in zip(found["gt_bboxes"].numpy().astype(int), found["gt_bboxes_labels"]):
        inside = found["img"][box[1] + 2 : box[3] - 2, box[0] + 2 : box[2] - 2]
        assert (inside == label).all()


@pytest.mark.parametrize("seed", range(5))
def test_boxes_follow_the_picture(seed: int) -> None:
    mosaic = GridMosaic(tile_size=80, max_rotate_degree=10, scaling_ratio_range=(0.5, 1.5))
    np.random.seed(seed)
    for color in (60, 120, 180, 240):
        found = mosaic.transform(picture(color))
    height, width = found["img_shape"]
    boxes = found["gt_bboxes"].numpy()
    assert ((boxes >= 0) & (boxes <= [width, height, width, height])).all()
    bright = found["img"].max(-1) > 40
    covered = np.zeros_like(bright)
    for x1, y1, x2, y2 in boxes:
        covered[int(y1) : int(np.ceil(y2)) + 1, int(x1) : int(np.ceil(x2)) + 1] = True
    assert not (bright & ~covered).any(), "nothing of an object lies outside of the boxes"


def test_cache_is_bounded_and_keeps_the_newest() -> None:
    mosaic = GridMosaic(tile_size=20, max_cached_images=3)
    for color in range(10, 100, 10):
        mosaic.transform(picture(color))
        assert mosaic._cache[-1]["labels"].tolist() == [color]
    assert len(mosaic._cache) == 3


def test_seeds_hold() -> None:
    results = []
    for _ in range(2):
        np.random.seed(7)
        mosaic = GridMosaic(tile_size=40)
        results.append([mosaic.transform(picture(color))["img"] for color in (50, 100)][-1])
    np.testing.assert_array_equal(*results)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="scaling_ratio_range"):
        GridMosaic(scaling_ratio_range=(1.5, 0.5))
    with pytest.raises(ValueError, match="tile_size"):
        GridMosaic(tile_size=0)
