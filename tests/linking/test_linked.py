"""A config is linked once, and its type says so; classes say themselves what is linked in them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from efftasks import apis
from efftasks.config import config_of_checkpoint, fit_transform, linked_config, load_config
from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.datasets.transforms.loading import LoadImage
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError

SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SMALL = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}


@TRANSFORMS.register_module(force=True)
class OwnFit(FitImage):
    """A user's way to fit images."""


@TRANSFORMS.register_module(force=True)
class OwnLoad(LoadImage):
    """A user's way to read them."""


def test_only_loading_makes_one_and_copies_are_too() -> None:
    cfg = load_config(SHAPES)
    for made in (cfg, cfg.copy(), copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg)), load_config(cfg)):
        assert type(made) is LinkedConfig and all(made[key] == cfg[key] for key in cfg if key != "linked")
    assert type(Config.fromfile(apis.config_path(SHAPES))) is Config


def test_a_dumped_one_is_linked_anew(tmp_path: Path) -> None:
    cfg = load_config(SHAPES)
    cfg.dump(str(tmp_path / "dumped.py"))
    assert type(Config.fromfile(tmp_path / "dumped.py")) is Config
    assert linked_config(tmp_path / "dumped.py").model == cfg.model


def test_a_linked_config_is_taken_as_it_stands() -> None:
    cfg = load_config(SHAPES, SMALL)
    assert linked_config(cfg) is cfg
    cfg.model.head.num_classes = 4  # a second pass would refuse it: the config has six classes
    assert apis.build(cfg).head.num_classes == 4
    with pytest.raises(UserError, match=r"model\.head\.num_classes: got 4, expected 6"):
        load_config(cfg)


@pytest.mark.parametrize("kind", ["name", "path", "plain"])
def test_what_is_not_linked_is_linked_first(kind: str) -> None:
    path = apis.config_path(SHAPES)
    given: Any = {"name": SHAPES, "path": path, "plain": Config.fromfile(path)}[kind]
    assert apis.build(given).head.num_classes == 6


def test_a_checkpoint_that_says_nothing_changes_nothing() -> None:
    cfg = load_config(SHAPES)
    assert config_of_checkpoint(cfg, {}) is cfg
    other = config_of_checkpoint(cfg, {"classes": ("x",)})
    assert type(other) is LinkedConfig and other.model.head.num_classes == 1 and cfg.model.head.num_classes == 6


def with_pipeline(*types: str) -> LinkedConfig:
    pipeline = [dict(type=name) for name in types]
    return load_config(SHAPES, {"test_dataloader.dataset.pipeline": pipeline, "image_size": 64})


def test_the_fit_is_a_fit_and_no_other_transform_with_a_size() -> None:
    cfg = with_pipeline("LoadImage", "ObjectMosaic", "RandomWarp", "FitImage", "PackObjects")
    assert fit_transform(cfg)["type"] == "FitImage"
    assert fit_transform(with_pipeline("LoadImage", "CropBox"))["type"] == "CropBox"
    with pytest.raises(UserError, match="has no FitImage"):
        fit_transform(with_pipeline("LoadImage", "ObjectMosaic", "RandomWarp"))


def test_classes_of_a_user_inherit_what_is_linked() -> None:
    cfg = with_pipeline("OwnLoad", "OwnFit", "PackObjects")
    assert fit_transform(cfg) == dict(type="OwnFit", size=(64, 64))
    cfg = load_config(cfg, {"pixel_range": (0, 4095)})
    assert cfg.test_dataloader.dataset.pipeline[0] == dict(type="OwnLoad", pixel_range=(0, 4095))
