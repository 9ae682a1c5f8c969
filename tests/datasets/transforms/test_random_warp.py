"""Random geometry: what is drawn lies in its range, everything follows, and mirrors swap left and right."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.datasets.transforms.random_warp import FlipObjects, RandomWarp


def picture(height: int = 60, width: int = 120) -> dict[str, Any]:
    """A bright rectangle [20, 50) x [10, 40), its mask, its label and its corners as keypoints."""
    mask = np.zeros((height, width), np.uint8)
    mask[10:40, 20:50] = 1
    return dict(
        img=np.repeat(mask[..., None] * np.uint8(200), 3, axis=2),
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(torch.tensor([[20.0, 10, 50, 40]])),
        gt_bboxes_labels=np.array([4]),
        gt_ignore_flags=np.array([False]),
        gt_area_shares=np.array([1], np.float32),
        gt_masks=BitmapMasks(mask[None], height, width),
        gt_seg_map=mask.copy(),
        gt_keypoints=np.array([[[20, 10, 2], [50, 40, 1], [35, 12, 2]]], np.float32),
        keypoint_mirror=(1, 0, 2),
    )


def test_without_chance_the_image_fits_in_the_middle() -> None:
    found = RandomWarp(size=(64, 96), scale=(1, 1), translate=0)(picture())  # 48 x 96, 8 rows above and below
    assert found["img"].shape == (64, 96, 3) and found["img_shape"] == (64, 96)
    np.testing.assert_allclose(found["gt_bboxes"].tensor, [[16, 16, 40, 40]], atol=1e-5)
    np.testing.assert_allclose(found["gt_keypoints"][0], np.array([[16, 16, 2], [40, 40, 1], [28, 17.6, 2]]), atol=1e-5)
    mask = np.zeros((64, 96), np.uint8)
    mask[16:40, 16:40] = 1
    np.testing.assert_array_equal(found["gt_masks"].masks[0], mask)
    assert (found["gt_seg_map"][:8] == 255).all() and (found["gt_seg_map"][56:] == 255).all()
    np.testing.assert_array_equal(found["gt_seg_map"][8:56], mask[8:56])
    assert (found["img"][:7] == 114).all() and (found["img"][18:38, 18:38] == 200).all()


@pytest.mark.parametrize("rotate", [0.0, 30.0])
@pytest.mark.parametrize("seed", range(8))
def test_everything_follows(seed: int, rotate: float) -> None:
    np.random.seed(seed)
    found = RandomWarp(size=(90, 80), rotate=rotate, fill=0)(picture())
    mask, bright = found["gt_masks"].masks[0], found["img"][..., 0] > 100
    assert (mask != bright).sum() < 0.1 * mask.sum() + 8, "but for pixels on the edge"
    np.testing.assert_array_equal(found["gt_seg_map"] == 1, mask == 1)
    ys, xs = np.nonzero(mask)
    around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(found["gt_bboxes"].tensor[0], around, atol=1.0)
    x, y, visible = found["gt_keypoints"][0].T
    inside = (x >= 0) & (x < 80) & (y >= 0) & (y < 90)
    assert visible.tolist() == (np.array([2, 1, 2]) * inside).tolist()


def test_stretched_without_chance_it_is_what_the_test_pipeline_does() -> None:
    found = RandomWarp((120, 180), "stretch", scale=(1, 1), translate=0)(picture())
    fitted = FitImage((120, 180), "stretch")(picture())
    for key in ("gt_bboxes", "gt_keypoints"):
        np.testing.assert_allclose(_array(found[key]), _array(fitted[key]), rtol=1e-5)
    np.testing.assert_array_equal(found["gt_masks"].masks, fitted["gt_masks"].masks)
    np.testing.assert_allclose(found["img"].astype(float)[2:-2, 2:-2], fitted["img"][2:-2, 2:-2], atol=8)


def _array(value: Any) -> np.ndarray:
    return value.numpy() if isinstance(value, HorizontalBoxes) else value


def test_a_stretch_follows_the_turn() -> None:
    """A picture of 60 x 120 that is turned by a quarter is 120 x 60, and that is stretched."""
    warp = RandomWarp((60, 120), "stretch", scale=(1, 1), translate=0, quarter_turns=True)
    np.random.seed(0)
    boxes = {tuple(warp(picture())["gt_bboxes"].tensor[0].round().int().tolist()) for _ in range(40)}
    # Upright: [20, 10, 50, 40]; turned to the right in 120 x 60: [20, 20, 50, 50], and then 2 and 1 / 2 times as large.
    assert boxes == {(20, 10, 50, 40), (40, 10, 100, 25), (70, 20, 100, 50), (20, 35, 80, 50)}


def test_quarter_turns() -> None:
    warp = RandomWarp(size=(60, 60), scale=(1, 1), translate=0, quarter_turns=True)
    np.random.seed(0)
    found = [warp(picture()) for _ in range(200)]
    # 120 x 60 fits into 60 x 60 at half its size; the box is [10, 20] to [25, 35] in the frame, turned about (30, 30).
    turned: list[tuple[int, ...]] = [(10, 20, 25, 35), (25, 10, 40, 25), (35, 25, 50, 40), (20, 35, 35, 50)]
    first = [(10, 20), (40, 10), (50, 40), (20, 50)]  # where its upper left corner comes to lie
    boxes = [tuple(int(v) for v in x["gt_bboxes"].tensor[0].round()) for x in found]
    assert set(boxes) == set(turned)
    assert all(30 <= boxes.count(box) <= 70 for box in turned)
    for box, each in zip(boxes, found):
        np.testing.assert_allclose(each["gt_bboxes"].tensor[0], box, atol=1e-4)
        np.testing.assert_allclose(each["gt_keypoints"][0, 0, :2], first[turned.index(box)], atol=1e-4)
        assert (each["img"][box[1] + 2 : box[3] - 2, box[0] + 2 : box[2] - 2] == 200).all()


def test_the_scale_is_drawn_from_its_range() -> None:
    warp = RandomWarp(size=(60, 120), scale=(0.5, 0.8), translate=0.1, rotate=10)
    matrices = [warp._random_matrix((60, 120)) for _ in range(200)]
    scales = [np.hypot(*m[:, 0]) for m in matrices]
    moved = np.array([m[:, :2] @ [60, 30] + m[:, 2] - [60, 30] for m in matrices])
    degrees = [np.rad2deg(np.arctan2(m[1, 0], m[0, 0])) for m in matrices]
    for values, low, high in ((scales, 0.5, 0.8), (moved[:, 0], -12, 12), (moved[:, 1], -6, 6), (degrees, -10, 10)):
        room = 0.1 * (high - low)
        assert low - 1e-9 <= min(values) < low + room and high - room < max(values) <= high + 1e-9


@pytest.mark.parametrize(
    ("direction", "box", "points"),
    [
        ("horizontal", [70, 10, 100, 40], [[70, 40, 1], [100, 10, 2], [85, 12, 2]]),
        ("vertical", [20, 20, 50, 50], [[50, 20, 1], [20, 50, 2], [35, 48, 2]]),
        ("diagonal", [70, 20, 100, 50], [[100, 50, 2], [70, 20, 1], [85, 48, 2]]),
    ],
)
def test_flips_by_hand(direction: str, box: list[float], points: list[list[float]]) -> None:
    found = FlipObjects(prob=1.0, direction=direction)(picture())
    assert found["flip"] and found["flip_direction"] == direction
    assert found["gt_bboxes"].tensor.tolist() == [box]
    assert found["gt_keypoints"].tolist() == [points]
    mask = np.zeros((60, 120), np.uint8)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 1
    np.testing.assert_array_equal(found["gt_masks"].masks, mask[None])
    np.testing.assert_array_equal(found["gt_seg_map"], mask)
    np.testing.assert_array_equal(found["img"][..., 1], mask * 200)


def test_a_flip_loses_nothing() -> None:
    before = picture()
    before["gt_bboxes"] = HorizontalBoxes(torch.tensor([[3.0, 3, 3.25, 4]]))  # smaller than a pixel
    before["gt_keypoints"][0, 0, 0] = -5.0
    flip = FlipObjects(prob=1.0)
    after = flip(flip(dict(before)))
    assert after["gt_bboxes"].tensor.tolist() == [[3, 3, 3.25, 4]]
    np.testing.assert_allclose(after["gt_keypoints"], before["gt_keypoints"])


def test_without_pairs_or_keypoints() -> None:
    before = picture()
    del before["keypoint_mirror"]
    assert FlipObjects(prob=1.0)(before)["gt_keypoints"][0, 0].tolist() == [100, 10, 2]
    for key in ("gt_keypoints", "gt_masks", "gt_seg_map", "gt_area_shares"):
        del before[key]
    assert FlipObjects(prob=1.0)(before)["gt_bboxes"].tensor.tolist() == [[20, 10, 50, 40]]


@pytest.mark.parametrize(
    ("prob", "direction", "shares"),
    [
        (0.5, "horizontal", dict(horizontal=0.5)),
        (0.5, ["horizontal", "vertical"], dict(horizontal=0.25, vertical=0.25)),
        ([0.3, 0.1, 0.2], ["horizontal", "vertical", "diagonal"], dict(horizontal=0.3, vertical=0.1, diagonal=0.2)),
    ],
)
def test_probabilities(prob: Any, direction: Any, shares: dict[str, float]) -> None:
    flip = FlipObjects(prob, direction)
    small = dict(picture(), img=np.zeros((60, 120, 3), np.uint8))
    drawn = [flip(dict(small))["flip_direction"] for _ in range(1000)]
    for name in ("horizontal", "vertical", "diagonal"):
        assert abs(drawn.count(name) / 1000 - shares.get(name, 0)) < 0.05


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="size: got None"):
        RandomWarp(size=None)
    with pytest.raises(ValueError, match="mode: got 'crop', allowed are 'letterbox', 'stretch'"):
        RandomWarp(size=(4, 4), mode="crop")
    with pytest.raises(ValueError, match="scale: got"):
        RandomWarp(size=(4, 4), scale=(2, 1))
    with pytest.raises(ValueError, match="translate: got 2"):
        RandomWarp(size=(4, 4), translate=2)
    with pytest.raises(ValueError, match="rotate: got -1"):
        RandomWarp(size=(4, 4), rotate=-1)
    with pytest.raises(ValueError, match="direction: got 'up', allowed are 'horizontal'"):
        FlipObjects(direction="up")
    for prob in ([0.5, 0.6], [0.1, 0.1, 0.1], -0.1):
        with pytest.raises(ValueError, match="prob: got"):
            FlipObjects(prob=prob, direction=["horizontal", "vertical"])
