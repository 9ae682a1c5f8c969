"""One family of transforms for all tasks with objects: what it gives is mmdet's, and everything moves together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from efftasks.apis import build, load_config
from efftasks.datasets.coco import CocoDetection
from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.datasets.transforms.object_mixup import ObjectMixUp
from efftasks.datasets.transforms.object_mosaic import ObjectMosaic
from efftasks.datasets.transforms.random_crop import RandomIoUCrop, RandomZoomOut
from efftasks.datasets.transforms.random_warp import FlipObjects, RandomWarp
from efftasks.linking.links import walk
from efftasks.registry import TRANSFORMS

CONFIGS = Path(__file__).parents[3] / "configs"
TASKS = ("det", "insseg", "pose", "multitask")
# What others do well: pixels alone, and choosing between pipelines.
FOREIGN = {"mmdet.YOLOXHSVRandomAug", "mmdet.PhotoMetricDistortion", "RandomChoice", "mmcv.RandomChoice"}
WITH_OBJECTS = [file for task in TASKS for file in sorted((CONFIGS / task).rglob("*.py"))]


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-one-family", scope_name="efftasks")


@pytest.mark.parametrize("file", WITH_OBJECTS, ids=lambda file: file.stem)
def test_configs_with_objects_use_no_other(file: Path) -> None:
    cfg = Config.fromfile(file)
    datasets = [cfg[f"{part}_dataloader"] for part in ("train", "val", "test")]
    steps = [step for part in datasets for _, step in walk(part) if "pipeline" in step for step in step["pipeline"]]
    switched = [step["switch_pipeline"] for _, step in walk(cfg._cfg_dict) if step.get("switch_pipeline")]
    used = {node["type"] for part in (steps, switched) for _, node in walk(part) if "type" in node}
    assert "LoadImage" in used
    assert {name for name in used if not is_ours(name)} <= FOREIGN


def is_ours(name: str) -> bool:
    kind = TRANSFORMS.get(name)
    return kind is not None and kind.__module__.startswith("efftasks.")


def real(data: Path, name: str, pipeline: list[dict[str, Any]]) -> CocoDetection:
    return CocoDetection(
        ann_file="annotations/train.json",
        data_root=str(data / name),
        data_prefix=dict(img="images/"),
        pipeline=pipeline,
    )


MMDET: list[dict[str, Any]] = [
    dict(type="LoadImage"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.RandomFlip", prob=1.0),
    dict(type="mmdet.Resize", scale=(320, 256), keep_ratio=False),
    dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(8, 8), keep_empty=False),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
OURS: list[dict[str, Any]] = [
    dict(type="LoadImage"),
    dict(type="LoadObjects"),
    dict(type="FlipObjects", prob=1.0),
    dict(type="FitImage", size=(256, 320), mode="stretch"),
    dict(type="FilterObjects", min_side=8),
    dict(type="PackObjects"),
]


@pytest.mark.parametrize("name", ["coco_mini", "bccd"])
def test_a_pipeline_gives_what_mmdets_gives(real_data: Path, name: str) -> None:
    """Loading, mirror, fit, filter and packing of real images, some with crowd regions."""
    theirs, ours = real(real_data, name, MMDET), real(real_data, name, OURS)
    seen = 0
    for i in range(0, 60, 3):
        expected, actual = theirs[i], ours[i]
        assert torch.equal(actual["inputs"], expected["inputs"])
        for group in ("gt_instances", "ignored_instances"):
            one, other = expected["data_samples"].get(group), actual["data_samples"].get(group)
            if group == "ignored_instances":  # a small crowd region stays, to be ignored
                assert len(other) >= len(one)
                continue
            torch.testing.assert_close(other.bboxes.tensor, one.bboxes.tensor, rtol=0, atol=1e-3)
            assert torch.equal(other.labels, one.labels)
            seen += len(one)
        for key in ("img_id", "img_path", "ori_shape", "img_shape"):
            assert getattr(actual["data_samples"], key) == getattr(expected["data_samples"], key)
    assert seen > 40


def test_pipelines_of_mmdet_still_run(real_data: Path) -> None:
    """What a user's config may have: this package's loading, mmdet's mosaic, mixup, map, packing; and a step of it."""
    pipeline: list[dict[str, Any]] = [
        dict(type="LoadImage"),
        dict(type="mmdet.LoadAnnotations", with_bbox=True),
        dict(type="FitImage", size=(128, 128)),
        dict(type="mmdet.CachedMosaic", img_scale=(128, 128), pad_val=114.0, max_cached_images=8, prob=0.5),
        dict(type="FitImage", size=(128, 128)),
        dict(type="mmdet.CachedMixUp", img_scale=(128, 128), ratio_range=(1.0, 1.0), max_cached_images=4, prob=0.5),
        dict(type="mmdet.RandomAffine", max_rotate_degree=0.0, max_shear_degree=0.0),
        dict(type="mmdet.RandomFlip", prob=0.5),
        dict(type="mmdet.PackDetInputs"),
    ]
    dataset = real(real_data, "bccd", pipeline)
    np.random.seed(0)
    packed = [dataset[i] for i in range(12)]
    assert all(one["inputs"].shape == (3, 128, 128) for one in packed)
    assert sum(len(one["data_samples"].gt_instances) for one in packed) > 50
    model = build(load_config("o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128")).train()
    losses = model(**model.data_preprocessor(pseudo_collate(packed[:2]), training=True), mode="loss")
    assert losses and all(bool(torch.isfinite(value).all()) for value in losses.values())


COLOR, CROWD = 200, 90


def scene(seed: int) -> dict[str, Any]:
    """A disc with its mask, label and middle, and a darker crowd region, somewhere in an image of 90 x 120 pixels."""
    rng = np.random.default_rng(seed)
    (x, y), radius = rng.uniform([25, 25], [60, 65]), rng.uniform(9, 16)
    rows, columns = np.mgrid[:90, :120] + 0.5
    disc = np.hypot(columns - x, rows - y) < radius
    crowd = np.zeros_like(disc)
    crowd[20:70, 90:115] = True
    masks = np.stack([disc, crowd]).astype(np.uint8)
    return dict(
        img=np.repeat((disc * COLOR + crowd * CROWD).astype(np.uint8)[..., None], 3, axis=2),
        img_shape=(90, 120),
        gt_bboxes=HorizontalBoxes(torch.tensor([[x - radius, y - radius, x + radius, y + radius], [90, 20, 115, 70]])),
        gt_bboxes_labels=np.array([1, 2]),
        gt_ignore_flags=np.array([False, True]),
        gt_area_shares=np.array([0.8, 1], np.float32),
        gt_masks=BitmapMasks(masks, 90, 120),
        gt_seg_map=(disc * 1 + crowd * 2).astype(np.uint8),
        gt_keypoints=np.array([[[x, y, 2]], [[0, 0, 0]]], np.float32),
        keypoint_mirror=(0,),
    )


FAMILY: dict[str, Callable[[], BaseTransform]] = {
    "fit": lambda: FitImage((70, 80)),
    "stretch": lambda: FitImage((70, 160), "stretch"),
    "warp": lambda: RandomWarp((96, 96), rotate=20.0, fill=0),
    "stretched warp": lambda: RandomWarp((128, 96), "stretch", rotate=20.0, quarter_turns=True, fill=0),
    "flip": lambda: FlipObjects([0.3, 0.3, 0.4], ["horizontal", "vertical", "diagonal"]),
    "zoom": lambda: RandomZoomOut(prob=1.0),
    "crop": lambda: RandomIoUCrop(prob=1.0),
    "mosaic": lambda: ObjectMosaic((90, 120), prob=1.0, fill=0, cache=4),
    "grid": lambda: ObjectMosaic((180, 200), prob=1.0, layout="grid", fill=0, cache=4),
}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("seed", range(4))
def test_boxes_masks_keypoints_labels_and_crowd_regions_move_together(name: str, seed: int) -> None:
    np.random.seed(seed)
    transform = FAMILY[name]()
    for i in range(4):  # a mosaic has something to draw from
        after = transform(scene(10 * seed + i))
    height, width = after["img_shape"]
    masks, labels = after["gt_masks"].masks, after["gt_seg_map"]
    assert after["img"].shape[:2] == (height, width) == labels.shape == masks.shape[1:]
    count = len(after["gt_bboxes_labels"])
    for key in ("gt_bboxes", "gt_ignore_flags", "gt_area_shares", "gt_masks", "gt_keypoints"):
        assert len(after[key]) == count > 0
    assert (after["gt_ignore_flags"] == (after["gt_bboxes_labels"] == 2)).all()
    for i, label in enumerate(after["gt_bboxes_labels"]):
        mask, (x1, y1, x2, y2) = masks[i] == 1, after["gt_bboxes"].numpy()[i]
        if mask.sum() < 30:
            continue  # a sliver at the edge
        ys, xs = np.nonzero(mask)
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x1, y1, x2, y2], atol=1.6)
        assert np.median(after["img"][mask]) == (COLOR if label == 1 else CROWD)
        assert np.median(labels[mask]) == label
        (px, py, visible) = after["gt_keypoints"][i, 0]
        if label == 1 and visible:
            assert mask[int(py), int(px)]
            if x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1 and name not in ("mosaic",):
                np.testing.assert_allclose([px, py], [(x1 + x2) / 2, (y1 + y2) / 2], atol=2)


def test_mixing_keeps_the_objects_of_both() -> None:
    mixup = ObjectMixUp(prob=1.0)
    first, second = mixup(scene(0)), mixup(scene(1))
    assert len(first["gt_masks"]) == 2 and second["gt_bboxes_labels"].tolist() == [1, 2, 1, 2]
    assert second["gt_ignore_flags"].tolist() == [False, True, False, True]
    own, other = scene(1)["gt_masks"].masks, scene(0)["gt_masks"].masks
    np.testing.assert_array_equal(second["gt_masks"].masks, np.concatenate([own, other]))
