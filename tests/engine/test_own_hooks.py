"""A config with hooks of its own trains as exactly as one without; a config dumped before loads, resumes and tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook

from efftasks import apis
from efftasks.checkpoints.files import read_checkpoint
from efftasks.cli.main import main
from efftasks.linking.hooks import hooks_of
from efftasks.registry import HOOKS

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "dumped_with_custom_hooks.py"
SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


@HOOKS.register_module(force=True)
class EpochNotes(Hook):
    """A user's hook."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def before_train_epoch(self, runner: Any) -> None:
        self.epochs.append(runner.epoch)


@pytest.fixture
def mine(tmp_path: Path) -> Config:
    path = tmp_path / "mine.py"
    base = str(apis.config_path(SHAPES))
    path.write_text(f"_base_ = [{base!r}]\ncustom_hooks = [dict(type='EpochNotes')]\n", encoding="utf-8")
    return apis.load_config(path, {"default_hooks.checkpoint.save_best": "toy/score", "default_hooks.ema.gamma": 5})


def test_seeds_average_and_progress_go_on_beside_ones_own_hook(toy, tmp_path: Path, mine: Config) -> None:
    def run(folder: Path, **options: Any) -> Any:
        hooks = dict(default_hooks=mine.default_hooks.to_dict(), custom_hooks=[*mine.custom_hooks])
        runner = toy.make_runner(folder, **hooks, **options)
        runner.train()
        return runner

    straight = run(tmp_path / "straight")
    assert straight.model.progress == [0, 1 / 3, 2 / 3, 1]
    (notes,) = (hook for hook in straight.hooks if isinstance(hook, EpochNotes))
    assert notes.epochs == [0, 1, 2, 3]
    (average,) = (hook for hook in straight.hooks if isinstance(hook, EMAHook))
    assert any(
        not torch.equal(a, b) for a, b in zip(average.ema_model.module.parameters(), straight.model.parameters())
    )
    folder = tmp_path / "resumed"
    folder.mkdir()
    shutil.copy(tmp_path / "straight/epoch_3.pth", folder)
    resumed = run(folder, resume=True, init_seed=7)
    assert resumed.model.losses == straight.model.losses[-4:]  # to the last bit


def test_hooks_that_are_none_or_never_act_are_no_hooks(toy, tmp_path: Path, mine: Config) -> None:
    """mmengine takes None for its own hooks alone."""
    off = {"ema": None, "timer": None, "later": dict(type="RestartFromBest", epoch="never")}
    options = {"schedule.never": None, **{f"default_hooks.{name}": hook for name, hook in off.items()}}
    cfg = apis.load_config(mine, options)
    runner = toy.make_runner(tmp_path / "run", default_hooks=cfg.default_hooks.to_dict(), custom_hooks=[])
    names = {type(hook).__name__ for hook in runner.hooks}
    assert "EpochSeed" in names and not names & {"EMAHook", "IterTimerHook", "RestartFromBest"}


@pytest.mark.slow
def test_a_dumped_config_of_before_trains_resumes_and_tests(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    options = {"data_root": f"{shapes}/", "train_dataloader.batch_size": 8}
    cfg = apis.load_config(FIXTURE, options)
    expected = [hook["type"].split(".")[-1] for _, hook in hooks_of(cfg)]
    cfg.work_dir = str(tmp_path)
    runner = apis.train(cfg, threads=1)
    names = [type(hook).__name__ for hook in runner.hooks]
    assert sorted(names) == sorted(expected) and len(names) == len(set(names)) == 11
    assert "ema_state_dict" in read_checkpoint(tmp_path / "epoch_2.pth")

    longer = apis.load_config(tmp_path / "dumped_with_custom_hooks.py", {"max_epochs": 3, "experiment_name": "longer"})
    longer.work_dir = str(tmp_path)
    runner = apis.train(longer, resume="auto", threads=1)
    assert runner.epoch == 3
    assert sorted(type(hook).__name__ for hook in runner.hooks) == sorted([*names, "ValidateResumed"])

    dumped, weights = str(tmp_path / "dumped_with_custom_hooks.py"), str(tmp_path / "epoch_3.pth")
    assert main(["test", dumped, weights]) == 0 and "coco/bbox_mAP" in capsys.readouterr().out
