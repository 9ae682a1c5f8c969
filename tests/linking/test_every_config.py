"""Every key that docs/configs.md says is stated once, overridden in every shipped config: it arrives, or is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from efftasks import apis
from efftasks.linking.overrides import LINKED_KEYS
from efftasks.linking.pipelines import check_pipelines
from efftasks.linking.schedule import schedule_warnings
from efftasks.registry import MODEL_TRANSFORMS, MODELS
from efftasks.structures.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = apis.shipped_configs()
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
NEW = (192, 192)


def known(name: str) -> dict[str, Any]:
    """What the config takes from training data, which is not there."""
    options: dict[str, Any] = {"classes": ["a", "b", "c"]}
    if "_custom-" in name and "pose" in CONFIGS[name].parts:
        options["keypoints"] = {"names": ["p", "q"]}
    return options


def load(name: str, **options: Any) -> Config:
    return apis.load_config(name, {**known(name), **options})


def values(node: Any) -> Iterator[Any]:
    yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from values(part)


def built_parts(cfg: Config) -> list[Any]:
    return [cfg[key] for key in (*LOADERS, "model", "default_hooks")]


def datasets(cfg: Config) -> list[Any]:
    return [cfg[name].dataset for name in LOADERS]


def is_refused(name: str, key: str, value: Any) -> bool:
    try:
        load(name, **{key: value})
    except UserError as error:
        return str(error).startswith(f"{key}: nothing in this config uses it")
    return False


def test_the_page_and_the_code_have_the_same_keys() -> None:
    page = (ROOT / "docs/configs.md").read_text(encoding="utf-8")
    section = page.split("## Values that are stated once")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(LINKED_KEYS)


@pytest.mark.parametrize("name", CONFIGS)
def test_image_size(name: str) -> None:
    old = tuple(load(name).image_size)
    cfg = load(name, image_size=NEW[0])
    assert apis.input_size(cfg) == NEW == tuple(cfg.image_size)
    left = [x for part in built_parts(cfg) for x in values(part) if isinstance(x, tuple) and x in (old, old[::-1])]
    assert not left
    tiles = [x for part in built_parts(cfg) for x in values(part) if isinstance(x, dict)]
    assert all(x["base"] == 192 for x in tiles if x.get("type") == "MultiScale")


@pytest.mark.parametrize("name", CONFIGS)
def test_crop_size(name: str) -> None:
    pipeline = load(name).train_dataloader.dataset.pipeline
    if all(step["type"] != "RandomScaledCrop" for step in pipeline):
        assert is_refused(name, "crop_size", NEW)
        return
    cfg = load(name, crop_size=NEW)
    crops = [x for x in cfg.train_dataloader.dataset.pipeline if x["type"] == "RandomScaledCrop"]
    assert [tuple(x["size"]) for x in crops] == [NEW] and tuple(crops[0]["fit"]) == tuple(cfg.image_size)


@pytest.mark.parametrize("name", CONFIGS)
def test_data_root_classes_and_palette(name: str) -> None:
    palette = [[1, 2, 3], [4, 5, 6]]
    cfg = load(name, data_root="/elsewhere", classes=["x", "y"], palette=palette)
    for dataset in datasets(cfg):
        assert dataset.data_root == "/elsewhere"
        assert tuple(dataset.metainfo.classes) == ("x", "y") and dataset.metainfo.palette == palette
    counts = [cfg.model[key].num_classes for key in ("head", "decode_head") if "num_classes" in cfg.model.get(key, {})]
    assert set(counts) <= {2} and (counts or "simcc" in name)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    files = [evaluator.ann_file for evaluator in evaluators if "ann_file" in evaluator]
    assert all(file.startswith("/elsewhere/") for file in files)


@pytest.mark.parametrize("name", CONFIGS)
def test_keypoints_and_semantic_classes(name: str) -> None:
    points = dict(names=["u", "v", "w"], sigmas=0.1, skeleton=[(0, 1)], flip_pairs=[])
    if "pose" in CONFIGS[name].parts or "pose" in name or "o2omulti" in name:
        cfg = load(name, keypoints=points)
        sigmas = [x["sigmas"] for x in values(cfg.model) if isinstance(x, dict) and "sigmas" in x]
        assert sigmas and all(each == [0.1] * 3 for each in sigmas)  # a teacher has some, too
        assert all(tuple(dataset.metainfo.keypoints.names) == ("u", "v", "w") for dataset in datasets(cfg))
    else:
        assert is_refused(name, "keypoints", points)
    if "o2omulti" in name:
        cfg = load(name, semantic_classes=["ground", "sky"])
        assert cfg.model.semantic_head.num_classes == 2
        assert all(tuple(dataset.metainfo.semantic_classes) == ("ground", "sky") for dataset in datasets(cfg))
    else:
        assert is_refused(name, "semantic_classes", ["ground", "sky"])


@pytest.mark.parametrize("name", CONFIGS)
def test_scale_and_vis_backends(name: str) -> None:
    cfg = load(name, scale=dict(phi=1.0), vis_backends=[dict(type="LocalVisBackend")])
    old = load(name).image_size
    assert apis.input_size(cfg) == tuple(cfg.image_size) and all(new >= side for new, side in zip(cfg.image_size, old))
    assert cfg.model.backbone.width > 1 and "scale" not in cfg
    assert cfg.visualizer.vis_backends == [dict(type="LocalVisBackend")]


@pytest.mark.parametrize("epochs", [1, 5, 1000])
@pytest.mark.parametrize("name", CONFIGS)
def test_max_epochs(name: str, epochs: int) -> None:
    plain, cfg = load(name), load(name, max_epochs=epochs)
    assert cfg.train_cfg.max_epochs == epochs == cfg.max_epochs
    assert not schedule_warnings(cfg) and not schedule_warnings(plain)
    for old, new in zip(plain.param_scheduler, cfg.param_scheduler):
        if not old.get("by_epoch", True):
            assert old == new
            continue
        begin, end = new.get("begin", 0), new.get("end", new.get("begin", 0) + new.get("T_max", 0))
        assert 0 <= begin < end <= max(epochs, begin + 1)
        if old.get("end", old.get("T_max")) == plain.max_epochs:
            assert end == max(epochs, begin + 1)
        assert "T_max" not in new or new.T_max == end - begin
    assert set(plain.default_hooks) == set(cfg.default_hooks)  # a hook of a fixed epoch may change places with others
    stated = Config.fromfile(CONFIGS[name])
    for hook, old in stated.default_hooks.items():
        for key in ("switch_epoch", "epoch"):
            if key in (old or {}):
                share = stated.schedule[old[key]]
                assert cfg.default_hooks[hook][key] == max(1, int(share * epochs + 0.5)) <= max(1, epochs)
    assert load(name, **{"train_cfg.max_epochs": epochs}).param_scheduler == cfg.param_scheduler


@pytest.mark.parametrize("name", CONFIGS)
def test_training_and_test_show_the_same_pictures(name: str) -> None:
    assert check_pipelines(load(name)) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_linking_again_changes_nothing_and_a_dumped_config_takes_overrides(name: str, tmp_path: Path) -> None:
    cfg = load(name)
    again = apis.load_config(cfg)
    assert all(again[key] == cfg[key] for key in cfg if key != "linked") and again.keys() == cfg.keys()
    # Formatted, as training dumps it, it is the same text with other line breaks, and takes most of a second.
    Config(cfg.to_dict(), format_python_code=False).dump(str(tmp_path / "dumped.py"))
    changed = dict(max_epochs=7, image_size=NEW, classes=["x", "y"])
    ours, theirs = apis.load_config(tmp_path / "dumped.py", changed), load(name, **changed)
    for key in (*LOADERS, "model", "default_hooks", "param_scheduler", "train_cfg", "test_evaluator"):
        assert ours[key] == theirs[key]


HEADS = ("det_heads", "insseg_heads", "pose_heads", "seg_heads")
COMPOSITES = ("detectors", "segmentors", "pose_estimators")
PARTS = ("backbones", "necks", *HEADS, "exits", "guides", "preprocessors", "batch_augments", *COMPOSITES)
INSIDE = {"ProbedBackbone"}  # made by the package itself
INSIDE |= {"ContrastiveDenoising", "QuerySelection", "BoxDecoder", "DistributionDecoder"}  # docs/query_detectors.md
INSIDE |= {"PoseDecoder", "PoseDenoising", "PoseSelection"}  # parts of DETRPoseHead


def test_the_table_of_types_is_what_is_registered() -> None:
    MODELS.import_from_location()
    MODEL_TRANSFORMS.import_from_location()
    page = (ROOT / "docs/configs.md").read_text(encoding="utf-8")
    table = "".join(re.findall(r"^\| `model.*$", page.split("## Types")[1].split("\n## ")[0], re.MULTILINE))
    parts = {name for name, kind in MODELS.module_dict.items() if kind.__module__.split(".")[2] in PARTS} - INSIDE
    named = {name for name in re.findall(r"`(\w+)`", table) if name[0].isupper()}
    assert named == parts | set(MODEL_TRANSFORMS.module_dict)
