"""What always runs stays, whatever hooks a config adds, and nothing of it runs twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from efftasks import apis
from efftasks.linking.hooks import hooks_of

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "dumped_with_custom_hooks.py"
CUSTOM = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
QUERIES = "dfine-n_hgnetv2-b0_8xb16-160e_coco-640"
MMENGINE = {"RuntimeInfoHook", "IterTimerHook", "DistSamplerSeedHook", "LoggerHook", "ParamSchedulerHook"}
ALWAYS = {*MMENGINE, "SafeCheckpointHook", "EpochSeed", "TrainingProgress", "ReportSkippedImages", "EMAHook"}
SWITCH = "mmdet.PipelineSwitchHook"


def write(folder: Path, name: str, text: str) -> Config:
    path = folder / "mine.py"
    path.write_text(f"_base_ = [{str(apis.config_path(name))!r}]\n{text}", encoding="utf-8")
    return apis.load_config(path, {"classes": ["ant"]})


def types(cfg: Config) -> Counter[str]:
    return Counter(hook["type"] for _, hook in hooks_of(cfg))


def settings(cfg: Config, kind: str) -> list[dict[str, Any]]:
    return [dict(hook) for _, hook in hooks_of(cfg) if hook["type"] == kind]


@pytest.mark.parametrize("name", apis.shipped_configs())
def test_every_config_has_what_always_runs_and_no_list_of_hooks(name: str) -> None:
    points = (
        {"keypoints": {"names": ["p", "q"], "sigmas": 0.1, "skeleton": []}} if "pose" in name or "simcc" in name else {}
    )
    cfg = apis.load_config(name, {"classes": ["ant"], **points})
    assert not cfg.get("custom_hooks")
    stated = {kind for _, kind in named(name)}
    assert set(types(cfg)) - {SWITCH, "RestartFromBest"} == ALWAYS | (stated & {"GroupSparsity", "QuantizationAware"})
    assert all(count == 1 or kind == SWITCH for kind, count in types(cfg).items())


def test_a_hook_of_ones_own_takes_nothing_away(tmp_path: Path) -> None:
    cfg = write(tmp_path, QUERIES, "custom_hooks = [dict(type='NumClassCheckHook')]")
    assert types(cfg) == Counter({*ALWAYS, SWITCH, "RestartFromBest", "NumClassCheckHook"})
    assert settings(cfg, "EMAHook") == settings(apis.load_config(QUERIES), "EMAHook")


def test_seeds_of_ones_own_take_the_place_of_the_others_alone(tmp_path: Path) -> None:
    cfg = write(tmp_path, QUERIES, "custom_hooks = [dict(type='EpochSeed')]")
    assert types(cfg) == Counter({*ALWAYS, SWITCH, "RestartFromBest"})


def test_an_average_of_ones_own_takes_the_place_of_the_other(tmp_path: Path) -> None:
    cfg = write(tmp_path, QUERIES, "custom_hooks = [dict(type='EMAHook', momentum=0.5)]")
    assert settings(cfg, "EMAHook") == [dict(type="EMAHook", momentum=0.5)]
    assert set(types(cfg)) >= ALWAYS
    assert apis.load_config(cfg).to_dict() == cfg.to_dict()


def test_a_second_switch_of_pipelines_is_one_more(tmp_path: Path) -> None:
    cfg = write(tmp_path, CUSTOM, f"custom_hooks = [dict(type={SWITCH!r}, switch_epoch=50 / 100, switch_pipeline=[])]")
    assert sorted(hook["switch_epoch"] for hook in settings(cfg, SWITCH)) == [50, 90]


def test_settings_change_by_name_and_none_takes_a_hook_away(tmp_path: Path) -> None:
    cfg = write(tmp_path, QUERIES, "default_hooks = dict(ema=dict(gamma=7), restart=None)")
    (average,) = settings(cfg, "EMAHook")
    assert (average["gamma"], average["momentum"]) == (7, 0.0001)
    assert not settings(cfg, "RestartFromBest")
    assert not settings(apis.load_config(QUERIES, {"default_hooks.ema": None}), "EMAHook")


def test_a_complete_list_of_before_counts_alone(tmp_path: Path) -> None:
    """Written on top of a shipped config while those had their hooks in custom_hooks: no restart, another switch."""
    listed = ["EpochSeed", "TrainingProgress", "ReportSkippedImages"]
    text = f"[*(dict(type=x) for x in {listed}), dict(type={SWITCH!r}, switch_epoch=80 / 160, switch_pipeline=[])]"
    cfg = write(tmp_path, QUERIES, f"custom_hooks = {text}")
    assert types(cfg) == Counter({*ALWAYS, SWITCH} - {"EMAHook"})
    assert [hook["switch_epoch"] for hook in settings(cfg, SWITCH)] == [80]


def test_a_dumped_config_of_before_runs_no_hook_twice() -> None:
    cfg = apis.load_config(FIXTURE)
    assert types(cfg) == Counter({*ALWAYS, SWITCH})
    longer = apis.load_config(FIXTURE, {"max_epochs": 10, "image_size": (96, 96)})
    assert types(longer) == types(cfg)
    (switch,) = settings(longer, SWITCH)
    assert (switch["switch_epoch"], switch["switch_pipeline"][2]["size"]) == (5, (96, 96))
    assert longer.param_scheduler[1].T_max == 10


def test_the_page_names_every_hook_of_the_configs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/configs.md").read_text(encoding="utf-8")
    table = page.split("### Hooks")[1]
    ours = {name for file in apis.shipped_configs() for name, kind in named(file) if kind not in MMENGINE}
    assert ours <= set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE))))


def named(name: str) -> list[tuple[str, str]]:
    cfg = Config.fromfile(apis.config_path(name))
    return [(key, hook["type"]) for key, hook in cfg.default_hooks.items() if hook]
