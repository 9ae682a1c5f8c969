"""A checkpoint is loaded into a config with its own classes, and without any where the config knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from efftasks import apis
from efftasks.structures.errors import UserError

COCO = "o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640"
CUSTOM = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
POSE = "o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
SMALL = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def checkpoint(config: Any, meta: Any = None, wrap: bool = True) -> str:
        weights = apis.build(config).state_dict()
        torch.save(dict(state_dict=weights, meta=meta) if wrap else weights, tmp_path / "model.pth")
        return str(tmp_path / "model.pth")

    return checkpoint


def test_the_checkpoints_classes_count_however_the_config_is_given(write: Write, tmp_path: Path) -> None:
    two = apis.load_config(COCO, {**SMALL, "classes": ["cat", "dog"]})
    path = write(two, dict(dataset_meta=dict(classes=("cat", "dog"), category_ids=(5, 7))))
    given = apis.load_config(COCO, SMALL)
    assert given.model.head.num_classes == 80
    file = tmp_path / "small.py"
    given.dump(str(file))
    for config in (given, file, str(file)):
        model = apis.load(config, path)
        assert model.head.num_classes == 2 and apis.describe(model).classes == ("cat", "dog")
        assert apis.describe(model).category_ids == (5, 7)
        assert tuple(model.cfg.test_dataloader.dataset.metainfo.classes) == ("cat", "dog")
    assert given.model.head.num_classes == 80


def test_no_training_data_is_needed_beside_a_checkpoint(write: Write) -> None:
    points = dict(names=["a", "b"], sigmas=0.1)
    meta = dict(dataset_meta=dict(classes=["tube"], keypoints=dict(names=("a", "b"), sigmas=(0.1, 0.1))))
    path = write(apis.load_config(POSE, {**SMALL, "classes": ["tube"], "keypoints": points}), meta)
    model = apis.load(apis.load_config(POSE, {**SMALL, "data_root": "/nowhere"}), path)
    assert apis.describe(model).keypoints == ("a", "b") and model.cfg.classes == ("tube",)


@pytest.mark.parametrize("meta", [None, {}, {"dataset_meta": None}, {"dataset_meta": {}}])
def test_weights_alone_have_the_classes_of_the_config(write: Write, meta: Any) -> None:
    cfg = apis.load_config(CUSTOM, {**SMALL, "classes": ["cat", "dog"]})
    model = apis.load(cfg, write(cfg, meta))
    assert apis.describe(model).classes == ("cat", "dog")


def test_a_plain_state_dict_too(write: Write) -> None:
    cfg = apis.load_config(COCO, SMALL)
    assert len(apis.describe(apis.load(cfg, write(cfg, wrap=False))).classes) == 80


def test_where_nobody_knows_the_classes_it_is_one_sentence(write: Write) -> None:
    path = write(apis.load_config(CUSTOM, {**SMALL, "classes": ["cat"]}))
    with pytest.raises(UserError, match=r"model\.pth: it names no classes .*and the config states none"):
        apis.load(apis.load_config(CUSTOM, {**SMALL, "data_root": "/nowhere"}), path)


def test_metadata_without_classes_are_none(write: Write) -> None:
    cfg = apis.load_config(CUSTOM, {**SMALL, "classes": ["cat", "dog"]})
    path = write(cfg, {"dataset_meta": {"note": "x"}})
    assert apis.describe(apis.load(cfg, path)).classes == ("cat", "dog")
    with pytest.raises(UserError, match=r"model\.pth: it names no classes .*and the config states none"):
        apis.load(apis.load_config(CUSTOM, {**SMALL, "data_root": "/nowhere"}), path)


def test_keypoints_of_the_data_of_a_detector_do_no_harm(write: Write) -> None:
    cfg = apis.load_config(CUSTOM, {**SMALL, "classes": ["person"]})
    path = write(cfg, dict(dataset_meta=dict(classes=["person"], keypoints=dict(names=["a"], sigmas=[0.1]))))
    assert apis.load(cfg, path).head.num_classes == 1


@pytest.mark.parametrize(("mode", "size", "pad_value"), [("letterbox", (320, 640), 30), ("stretch", (64, 96), 114)])
def test_an_artifact_says_how_its_images_are_fitted(mode: str, size: tuple[int, int], pad_value: int) -> None:
    cfg = apis.load_config(COCO, SMALL)
    fit = next(step for step in cfg.test_dataloader.dataset.pipeline if step["type"] == "FitImage")
    fit.update(mode=mode, size=size, pad_value=pad_value)
    model = apis.build(cfg)
    model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes))
    found = apis.describe(model)
    assert (found.input.resize, found.input.height, found.input.width) == (mode, *size)
    assert found.input.pad_value == pad_value and found.input.divisor == 32
    assert found.category_ids == tuple(range(80)) and found.task == "detection"
    apis.set_input_size(cfg, (96, 128))
    assert apis.input_size(cfg) == (96, 128) and apis.describe(model).input.width == 128
    apis.set_input_size(cfg, (96, 100))
    with pytest.raises(UserError, match="image size: got 96 x 100, expected multiples of 32"):
        apis.describe(model)
