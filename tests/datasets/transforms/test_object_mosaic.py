"""The mosaic of objects, alone by hand, and in whole pipelines on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.datasets.coco import CocoDetection
from efftasks.datasets.transforms.object_mosaic import ObjectMosaic
from efftasks.datasets.transforms.random_warp import RandomWarp

CONFIGS = Path(__file__).parents[3] / "configs" / "_base_" / "datasets"


def picture(color: int, size: tuple[int, int] = (80, 120), **more: Any) -> dict[str, Any]:
    """A rectangle of a color, its mask and label, its middle and one keypoint that is not annotated."""
    mask = np.zeros(size, np.uint8)
    mask[20:60, 30:90] = 1
    return dict(
        img=np.repeat(mask[..., None] * np.uint8(color), 3, axis=2),
        img_shape=size,
        gt_bboxes=HorizontalBoxes(torch.tensor([[30.0, 20, 90, 60]])),
        gt_bboxes_labels=np.array([color]),
        gt_ignore_flags=np.array([color == 150]),
        gt_area_shares=np.array([color / 255], np.float32),
        gt_masks=BitmapMasks(mask[None], *size),
        gt_keypoints=np.array([[[60, 40, 2], [0, 0, 0]]], np.float32),
        **more,
    )


def test_four_images_by_hand() -> None:
    mosaic = ObjectMosaic(size=(40, 60), prob=1.0, center=(1, 1), fill=0)
    for color in (50, 100, 150, 200):
        found = mosaic(picture(color))
    assert found["img"].shape == (80, 120, 3) and found["img_shape"] == (80, 120)
    expected = [[15, 10, 45, 30], [75, 10, 105, 30], [15, 50, 45, 70], [75, 50, 105, 70]]
    assert found["gt_bboxes"].tensor.tolist() == expected
    labels = found["gt_bboxes_labels"]
    assert labels[0] == 200  # its own comes first
    assert found["gt_ignore_flags"].tolist() == (labels == 150).tolist()
    np.testing.assert_allclose(found["gt_area_shares"], labels / 255, rtol=1e-6)
    assert found["gt_keypoints"][:, 0].tolist() == [[30, 20, 2], [90, 20, 2], [30, 60, 2], [90, 60, 2]]
    assert (found["gt_keypoints"][:, 1, 2] == 0).all()
    for (x1, y1, x2, y2), label, mask in zip(expected, labels, found["gt_masks"].masks):
        assert mask[y1:y2, x1:x2].sum() == mask.sum() == 600
        assert (found["img"][y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] == label).all()


@pytest.mark.parametrize("seed", range(10))
def test_masks_boxes_and_keypoints_are_where_the_picture_is(seed: int) -> None:
    mosaic = ObjectMosaic(size=(60, 60), prob=1.0, fill=0, min_visible=0.0)
    np.random.seed(seed)
    for color in (60, 120, 180, 240):
        found = mosaic(picture(color, gt_seg_map=np.full((80, 120), color, np.uint8)))
    masks = found["gt_masks"].masks
    lit = found["img"][..., 0] > 0
    assert (masks.any(0) != lit).sum() < 0.15 * lit.sum(), "but for blurred edges"
    assert (masks.sum(0) <= 1).all()
    for mask, box, label, points in zip(
        masks, found["gt_bboxes"].numpy(), found["gt_bboxes_labels"], found["gt_keypoints"]
    ):
        ys, xs = np.nonzero(mask)
        np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.51)
        assert np.median(found["img"][mask == 1]) == label and (found["gt_seg_map"][mask == 1] == label).all()
        if points[0, 2]:
            assert mask[int(points[0, 1]), int(points[0, 0])] == 1


def test_a_grid_of_whole_images_by_hand() -> None:
    mosaic = ObjectMosaic(size=(80, 500), prob=1.0, layout="grid", fill=9)  # tiles have a shorter side of 40
    mosaic(picture(50, size=(60, 90)))
    for color in (100, 200):
        after = mosaic(picture(color))
    own, *others = after["gt_bboxes_labels"].tolist()
    assert own == 200 and len(others) == 3
    assert after["img"].shape == (80, 120, 3) and after["img_shape"] == (80, 120)
    for label, box, mask, points, (x, y) in zip(
        after["gt_bboxes_labels"],
        after["gt_bboxes"].tensor.tolist(),
        after["gt_masks"].masks,
        after["gt_keypoints"],
        [(0, 0), (60, 0), (0, 40), (60, 40)],
    ):
        factor = 40 / 60 if label == 50 else 0.5
        np.testing.assert_allclose(box, np.array([30, 20, 90, 60]) * factor + [x, y, x, y], rtol=1e-6)
        np.testing.assert_allclose(points[0], [60 * factor + x, 40 * factor + y, 2], rtol=1e-6)
        assert np.median(after["img"][mask == 1]) == label


def test_a_cell_of_the_grid_is_as_large_as_the_largest_image() -> None:
    mosaic = ObjectMosaic(size=(80, 80), prob=1.0, layout="grid", fill=9)
    for size in ((80, 120), (120, 80)):  # fitted: 40 x 60, 60 x 40
        for _ in range(8):
            after = mosaic(picture(50, size=size))
    assert after["img_shape"] in ((80, 120), (120, 120), (120, 80))
    assert (after["img"][:60, 40:60] == 9).all() or after["img_shape"] == (120, 80)  # beside its own, which is upright


def test_a_grid_and_a_warp_are_the_dense_mosaic() -> None:
    """What DEIM's mosaic is: the canvas turned, scaled and moved about its center, and then stretched to the input."""
    tiles = [picture(color) for color in (50, 100, 150, 200)]
    for seed in range(5):
        np.random.seed(seed)
        mosaic = ObjectMosaic(size=(160, 160), prob=1.0, layout="grid", fill=0)
        for tile in tiles:
            canvas = mosaic(dict(tile))
        warp = RandomWarp((96, 96), "stretch", (0.5, 1.5), rotate=10.0, fill=0, min_visible=0.0)
        np.random.seed(seed)
        boxes, labels = canvas["gt_bboxes"].numpy().copy(), canvas["gt_bboxes_labels"]
        after = warp(canvas)
        np.random.seed(seed)
        shift = np.random.uniform([-9.6, -9.6], [9.6, 9.6])
        angle, scale = np.deg2rad(np.random.uniform(-10, 10)), np.random.uniform(0.5, 1.5)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        expected = []
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - [120, 80]  # from the center of 160 x 240
            corners = (corners @ turn.T) * [96 / 240, 96 / 160] + 48 + shift
            box = np.concatenate([corners.min(0), corners.max(0)]).clip(0, 96)
            if (box[2:] - box[:2] >= 1).all():
                expected.append((label, box))
        assert after["gt_bboxes_labels"].tolist() == [label for label, _ in expected]
        kept = after["gt_bboxes"].numpy()
        masked = after["gt_masks"].masks
        for (_, box), actual, mask in zip(expected, kept, masked):
            ys, xs = np.nonzero(mask)
            np.testing.assert_allclose(actual, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.01)
            assert (actual[:2] >= box[:2] - 1).all() and (actual[2:] <= box[2:] + 1).all()  # tight about the mask


def test_images_of_data_sets_with_and_without_labels_and_keypoints() -> None:
    mosaic = ObjectMosaic(size=(40, 60), prob=1.0, center=(1, 1))
    mosaic(picture(50, gt_seg_map=np.zeros((80, 120), np.uint8), keypoint_mirror=(1, 0)))
    for _ in range(10):
        found = mosaic(picture(100))
        if 50 in found["gt_bboxes_labels"]:
            assert found["keypoint_mirror"] == (1, 0)
            assert (found["gt_seg_map"][:40, :60] == 255).all()  # its own, which has no labels
            assert set(np.unique(found["gt_seg_map"])) == {0, 255}
        else:
            assert "gt_seg_map" not in found


def test_what_is_not_drawn_passes_as_it_is() -> None:
    mosaic = ObjectMosaic(size=(40, 60), prob=0.0)
    before = picture(50)
    assert mosaic(before) is before and before["img"].shape == (80, 120, 3)


def test_later_steps_do_not_reach_the_cache() -> None:
    mosaic = ObjectMosaic(size=(80, 120), prob=0.0)
    before = picture(50)
    mosaic(before)["img"][:] = 7
    before["gt_keypoints"][:] = -1
    tile = mosaic.cache.tiles[-1]
    assert set(np.unique(tile.image)) == {0, 50} and tile.objects.keypoints is not None
    assert tile.objects.keypoints[0, 0].tolist() == [60, 40, 2]


def test_cache_is_bounded_and_keeps_the_newest() -> None:
    mosaic = ObjectMosaic(size=(20, 20), cache=3)
    for color in range(10, 100, 10):
        mosaic(picture(color))
        assert mosaic.cache.tiles[-1].objects.labels.tolist() == [color]
    assert len(mosaic.cache.tiles) == 3


def test_seeds_hold() -> None:
    found = []
    for _ in range(2):
        np.random.seed(7)
        mosaic = ObjectMosaic(size=(40, 60))
        found.append([mosaic(picture(color))["img"] for color in (50, 100, 150)][-1])
    np.testing.assert_array_equal(*found)


def test_wrong_arguments() -> None:
    wrong: dict[str, Any] = dict(size=None, prob=1.5, layout="row", cache=0, center=(0.5, 2), min_visible=-1)
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name}: got"):
            ObjectMosaic(**(dict(size=(4, 4)) | {name: value}))


@pytest.mark.parametrize(
    ("name", "side", "masks", "keypoints"),
    [
        ("coco_mini", 320, True, False),
        ("coco_pose", 320, True, True),
        ("glue_tubes", 256, False, True),
        ("nuclei", 256, True, False),
    ],
)
def test_whole_pipelines_on_real_images(real_data: Path, name: str, side: int, masks: bool, keypoints: bool) -> None:
    DefaultScope.get_instance("test-mosaic", scope_name="efftasks")
    pipeline = [
        dict(type="LoadImage"),
        dict(type="LoadObjects", masks=masks, keypoints=keypoints),
        dict(type="ObjectMosaic", size=(side, side), prob=0.5),
        dict(type="RandomWarp", size=(side, side), rotate=5.0),
        dict(type="mmdet.YOLOXHSVRandomAug"),
        dict(type="FlipObjects", prob=[0.3, 0.1, 0.1], direction=["horizontal", "vertical", "diagonal"]),
        dict(type="PackObjects"),
    ]
    dataset = CocoDetection(
        ann_file="annotations/train.json",
        data_root=str(real_data / name),
        data_prefix=dict(img="images/"),
        pipeline=pipeline,
    )
    objects = 0
    for i in range(12):
        packed = dataset[i]
        assert packed["inputs"].shape == (3, side, side) and packed["inputs"].dtype == torch.uint8
        for group in (packed["data_samples"].gt_instances, packed["data_samples"].ignored_instances):
            boxes = group.bboxes.tensor
            assert ((boxes >= 0) & (boxes <= side)).all() and (boxes[:, 2:] - boxes[:, :2] >= 1).all()
            objects += len(group)
            if masks:
                assert group.masks.shape == (len(group), side // 4, side // 4)
                for mask, (x1, y1, x2, y2) in zip(group.masks.numpy(), boxes.tolist()):
                    ys, xs = 4 * np.stack(np.nonzero(mask))  # of the corners of cells that have some of it
                    if len(xs):
                        assert x1 - 6 < xs.min() and xs.max() < x2 + 2
                        assert y1 - 6 < ys.min() and ys.max() < y2 + 2
            if keypoints:
                visible = group.keypoints[group.keypoints[..., 2] > 0]
                assert ((visible[:, :2] >= 0) & (visible[:, :2] < side)).all()
                assert group.area_shares.shape == (len(group),)
    assert objects > 12


@pytest.mark.parametrize(
    ("config", "name", "own"),
    [
        ("coco_detection", "coco_mini", "bboxes"),
        ("coco_instances", "nuclei", "masks"),
        ("coco_keypoints", "glue_tubes", "keypoints"),
    ],
)
def test_the_pipelines_of_the_configs(real_data: Path, config: str, name: str, own: str) -> None:
    DefaultScope.get_instance("test-mosaic", scope_name="efftasks")
    cfg = Config.fromfile(CONFIGS / f"{config}.py")
    for part in ("train_pipeline", "plain_pipeline", "test_pipeline"):
        pipeline = [dict(step, size=(192, 256)) if "size" in step else dict(step) for step in cfg[part]]
        dataset = CocoDetection(
            ann_file="annotations/val.json",
            data_root=str(real_data / name),
            data_prefix=dict(img="images/"),
            pipeline=pipeline,
        )
        for i in range(3):
            packed = dataset[i]
            assert packed["inputs"].shape == (3, 192, 256)
            assert (own in packed["data_samples"].gt_instances) == (part != "test_pipeline")
