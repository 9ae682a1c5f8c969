"""A test pipeline that prepares images otherwise than training is reported, with both places."""

from __future__ import annotations

from typing import Any

import pytest

from efftasks import apis
from efftasks.linking.pipelines import check_pipelines
from efftasks.structures.errors import UserError

SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
QUERIES = "dfine-n_hgnetv2-b0_8xb16-160e_coco-640"
POSE = "simcc-n_mobilenetv4-conv-s_8xb64-210e_coco-256"
SEMANTIC = "fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128"
TEST = "test_dataloader.dataset.pipeline"
TRAIN = "train_dataloader.dataset.pipeline"


def messages(name: str, options: dict[str, Any]) -> list[str]:
    findings = check_pipelines(apis.load_config(name, options))
    assert all(finding.level == "warning" for finding in findings)
    return [finding.message for finding in findings]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (SHAPES, {f"{TEST}.1.mode": "stretch"}, ["by letterbox, test by stretch", f"{TRAIN}.2", f"{TEST}.1"]),
        (QUERIES, {f"{TEST}.1.mode": "letterbox"}, ["by stretch, test by letterbox", f"{TEST}.1"]),
        (SHAPES, {f"{TEST}.1.size": (64, 64)}, ["of 128 x 128, test of 64 x 64", f"{TRAIN}.2", f"{TEST}.1"]),
        (SHAPES, {f"{TEST}.1.pad_value": 0}, ["pad value 114, test 0", f"{TEST}.1"]),
        (POSE, {f"{TEST}.1.padding": 1.0}, ["padding of boxes 1.25, test 1.0", f"{TEST}.1"]),
        (SEMANTIC, {f"{TEST}.1.pad_value": 0}, ["pad value 114, test 0", f"{TEST}.1"]),
        (SEMANTIC, {f"{TEST}.1.mode": "stretch"}, ["by letterbox, test by stretch", f"{TEST}.1"]),
        (SHAPES, {f"{TEST}.0": dict(type="LoadImageFromFile", color_type="color")}, ["reads images differently"]),
        (
            SHAPES,
            {TEST: [dict(type="LoadImage"), dict(type="FitImage", size=None), dict(type="mmdet.Normalize", mean=[1])]},
            ["normalizes differently"],
        ),
    ],
)
def test_one_difference_is_one_sentence(name: str, options: dict[str, Any], expected: list[str]) -> None:
    (message,) = messages(name, options)
    assert all(part in message for part in expected)


def test_resize_of_mmdet_is_compared_too() -> None:
    resize = dict(type="mmdet.Resize", scale=(128, 128), keep_ratio=True, interpolation="area")
    test = dict(type="mmdet.Resize", scale=(128, 128), keep_ratio=True)
    (message,) = messages(SHAPES, {f"{TRAIN}.2": resize, f"{TEST}.1": test, "val_dataloader": None})
    assert "interpolation area, test bilinear" in message


def test_what_is_the_same_is_silent_whatever_its_size() -> None:
    assert messages(SHAPES, {"image_size": (64, 96)}) == []


def test_a_stretch_is_one_in_training_too() -> None:
    bccd = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320"
    assert messages(bccd, {}) == []
    (message,) = messages(bccd, {f"{TRAIN}.2.mode": "letterbox"})
    assert "by letterbox, test by stretch" in message


@pytest.mark.parametrize("place", ["train_dataloader.dataset.pipeline", "default_hooks.no_aug.switch_pipeline"])
def test_a_transform_of_old_configs_that_is_gone_is_named_with_the_new_one(place: str) -> None:
    """Before the first step, also where training would switch to it after many epochs."""
    old = [dict(type="LoadImage"), dict(type="RandomChoice", transforms=[[dict(type="GridMosaic", tile_size=320)]])]
    cfg = apis.load_config("o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640", {"classes": ["a"], place: old})
    with pytest.raises(UserError) as error:
        check_pipelines(cfg)
    assert str(error.value).startswith(f"{place}.1.transforms.0.0: GridMosaic was removed, expected ObjectMosaic")
    assert "RandomWarp" in str(error.value)
