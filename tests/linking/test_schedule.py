"""A schedule is stated once: points of training by name, in epochs, iterations or shares of training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from efftasks import apis
from efftasks.structures.errors import UserError

CONFIGS = apis.config_folder()
DEIM = "deim-l_hgnetv2-b4_8xb4-58e_coco-640"
DFINE = "dfine-l_hgnetv2-b4_8xb4-80e_coco-640"
LITE = "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320"
SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
PIDNET = "pidnet-s_pidnet_2xb6-484e_cityscapes-2048"
POLY = "bisenetv2-base_bisenetv2_4xb4-860e_cityscapes-2048"


def epochs_of(cfg: Config, *names: str) -> list[int]:
    hooks = cfg.default_hooks
    return [hooks[name].get("switch_epoch", hooks[name].get("epoch")) for name in names]


def ends(cfg: Config) -> list[tuple[Any, ...]]:
    return [(x.type, x.get("begin", 0), x.get("end"), x.get("T_max")) for x in cfg.param_scheduler]


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.py")), ids=lambda file: file.stem)
def test_no_config_counts_epochs_twice(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    counted = re.findall(r"(?<!\w)(?:switch_epoch|epoch|T_max|begin|end)=(?!None|0,|\")\S+", text)
    counted += re.findall(r"(?:window=\(|late_from=).*\d / ", re.sub(r"schedule = dict\([^)]*\)", "", text))
    assert not counted and "custom_hooks = " not in text


def test_points_reach_rates_hooks_and_losses() -> None:
    """By hand, from the tables of DEIM-L: 58 epochs, dense from 4 to 29, the rate falls to 50, then no augmentation."""
    cfg = apis.load_config(DEIM)
    assert epochs_of(cfg, "dense", "augmented", "no_aug", "restart") == [4, 29, 50, 50]
    assert ends(cfg) == [("mmdet.QuadraticWarmupLR", 0, 2000, None), ("CosineAnnealingLR", 29, 50, 21)]
    dense, sizes = cfg.model.data_preprocessor.batch_augments
    assert dense.mixup.window == (4 / 57, 29 / 57) and sizes.window == (0.0, 50 / 57)
    assert apis.load_config(LITE).model.head.criterion.matcher.late_from == 450 / 499


def test_points_move_with_the_number_of_epochs_and_one_by_one() -> None:
    cfg = apis.load_config(DEIM, {"max_epochs": 116})
    assert epochs_of(cfg, "dense", "augmented", "no_aug") == [8, 58, 100]
    assert ends(cfg)[1] == ("CosineAnnealingLR", 58, 100, 42)
    assert cfg.model.data_preprocessor.batch_augments[0].mixup.window == (8 / 115, 58 / 115)
    cfg = apis.load_config(DEIM, {"schedule.flat_until": 40, "schedule.warmup_iters": 10})
    assert epochs_of(cfg, "augmented", "no_aug") == [40, 50]
    assert ends(cfg) == [("mmdet.QuadraticWarmupLR", 0, 10, None), ("CosineAnnealingLR", 40, 50, 10)]
    again = apis.load_config(cfg, {"max_epochs": 58 * 2})
    assert epochs_of(again, "dense", "augmented", "no_aug") == [8, 40, 100]


def test_what_begins_at_the_end_or_ends_at_the_beginning_is_left_out() -> None:
    assert ends(apis.load_config(DFINE)) == [("LinearLR", 0, 500, None)]  # flat_until=None: the rate stays
    assert ends(apis.load_config(DFINE, {"schedule.flat_until": 40 / 80}))[1] == ("CosineAnnealingLR", 40, 72, 32)
    cfg = apis.load_config(DFINE, {"schedule.no_aug_from": None})
    assert not {"no_aug", "restart"} & set(cfg.default_hooks)
    again = apis.load_config(cfg, {"schedule.no_aug_from": 70})
    assert epochs_of(again, "no_aug", "restart") == [70, 70]
    assert cfg.model.data_preprocessor.batch_augments[0].window[1] > 1  # until the end
    assert ends(apis.load_config(POLY)) == [("LinearLR", 0, 5, None), ("PolyLR", 5, 860, None)]
    assert ends(apis.load_config(POLY, {"schedule.warmup_epochs": 0})) == [("PolyLR", 0, 860, None)]


def test_schedulers_merge_by_name_and_are_still_counted_by_overrides(tmp_path: Path) -> None:
    cfg = apis.load_config(DEIM, {"param_scheduler.decay.eta_min_ratio": 0.2})
    assert [x.get("eta_min_ratio") for x in cfg.param_scheduler] == [None, 0.2]
    cfg = apis.load_config(DEIM, {"param_scheduler.1.eta_min_ratio": 0.3, "param_scheduler.0.end": 7})
    assert cfg.param_scheduler[1].eta_min_ratio == 0.3 and ends(cfg)[0][2] == 7
    path = tmp_path / "mine.py"
    own = "[dict(type='MultiStepLR', milestones=[3])]"
    path.write_text(f"_base_ = [{str(apis.config_path(SHAPES))!r}]\nparam_scheduler = {own}\n", encoding="utf-8")
    assert apis.load_config(path).param_scheduler == [dict(type="MultiStepLR", milestones=[3])]


def test_a_number_counts_the_schedulers_in_effect() -> None:
    """PIDNet has no warm-up: its first scheduler is the decay, and counting it brings none back."""
    cfg = apis.load_config(PIDNET, {"param_scheduler.0.power": 0.8})
    assert [(x.type, x.power) for x in cfg.param_scheduler] == [("PolyLR", 0.8)]
    options = {"param_scheduler.1.power": 0.7, "schedule.warmup_epochs": 2}
    assert [x.get("power") for x in apis.load_config(PIDNET, options).param_scheduler] == [None, 0.7]
    with pytest.raises(UserError, match=r"param_scheduler\.1\.power: the config has no place for this value"):
        apis.load_config(PIDNET, {"param_scheduler.1.power": 0.7})


def test_pipelines_of_one_epoch_are_switched_in_the_order_of_the_config() -> None:
    """Dense augmentation that ends in its first epoch is none: the pipeline after it decides."""
    cfg = apis.load_config(DEIM, {"schedule.dense_from": 20, "schedule.flat_until": 20})
    assert [name for name in cfg.default_hooks if name in ("dense", "augmented", "no_aug")] == [
        *("dense", "augmented", "no_aug")
    ]


def test_augmentation_without_a_beginning_is_never_active() -> None:
    cfg = apis.load_config(DEIM, {"schedule.dense_from": None})
    assert "dense" not in cfg.default_hooks
    begin, end = cfg.model.data_preprocessor.batch_augments[0].mixup.window
    assert begin == end == 29 / 57
    apis.build(cfg)


def test_a_dumped_config_takes_the_same_overrides(tmp_path: Path) -> None:
    apis.load_config(DEIM).dump(str(tmp_path / "dumped.py"))
    options = {"schedule.flat_until": 20 / 58, "param_scheduler.decay.eta_min_ratio": 0.1, "max_epochs": 29}
    ours, theirs = apis.load_config(tmp_path / "dumped.py", options), apis.load_config(DEIM, options)
    for key in ("param_scheduler", "default_hooks", "model"):
        assert ours[key] == theirs[key]
    assert ends(ours)[1] == ("CosineAnnealingLR", 10, 25, 15)


@pytest.mark.parametrize("epochs", [2, 58])
def test_pipelines_are_switched_in_the_order_of_their_epochs(epochs: int, tmp_path: Path) -> None:
    """It counts where a run is resumed after several of them; a dumped config is sorted by name."""
    apis.load_config(DEIM).dump(str(tmp_path / "dumped.py"))
    for config in (DEIM, tmp_path / "dumped.py"):
        names = list(apis.load_config(config, {"max_epochs": epochs}).default_hooks)
        assert [name for name in names if name in ("dense", "augmented", "no_aug")] == ["dense", "augmented", "no_aug"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (DEIM, {"schedule.no_aug_from": 1.5}, r"schedule\.no_aug_from: got 1\.5, expected a whole number, a share"),
        (DEIM, {"schedule.no_aug_from": "x"}, r"schedule\.no_aug_from: got 'x', expected a whole number"),
        (DEIM, {"schedule": 5}, r"schedule: got 5, expected a dict"),
        (DEIM, {"schedule.warmup_iters": 0.5}, r"schedule\.warmup_iters: got 0\.5, but param_scheduler\.0\.end counts"),
        (DEIM, {"schedule.flat_untill": 3}, r"schedule\.flat_untill: nothing in this config uses it"),
        (SHAPES, {"schedule.no_aug_from": 3}, r"schedule\.no_aug_from: nothing in this config uses it"),
        (
            DEIM,
            {"default_hooks.no_aug.switch_epoch": "no_aug"},
            r"no_aug\.switch_epoch: got 'no_aug', but `schedule` has no such point; did you mean 'no_aug_from'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        apis.load_config(name, options)


def test_a_share_needs_a_number_of_epochs(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    loop = "max_epochs = None\ntrain_cfg = dict(type='IterBasedTrainLoop', max_iters=9, val_interval=3)"
    path.write_text(f"_base_ = [{str(apis.config_path(DEIM))!r}]\n{loop}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"schedule\.\w+: got 0\.5, a share of max_epochs, and the config states none"):
        apis.load_config(path)
    points = {"schedule.dense_from": 4, "schedule.flat_until": 29, "schedule.no_aug_from": 50}
    with pytest.raises(UserError, match=r"window: is training progress, which needs max_epochs; the config has none"):
        apis.load_config(path, points)
