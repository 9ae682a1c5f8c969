"""A resumed run follows the schedule of its config, at the epoch where it resumes, and says what changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook

from efftasks.checkpoints.files import read_checkpoint
from efftasks.structures.errors import UserError

PER_EPOCH = 4  # 12 images in batches of 3


class Rates(Hook):
    """Keeps the rates that each step was taken with."""

    def __init__(self) -> None:
        self.values: list[list[float]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.values.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])


def schedule(epochs: int, warmup: int = 1) -> list[dict]:
    return [
        dict(type="LinearLR", start_factor=0.1, begin=0, end=warmup, by_epoch=True, convert_to_iter_based=True),
        dict(type="CosineAnnealingLR", T_max=epochs, eta_min_ratio=0.1, by_epoch=True, convert_to_iter_based=True),
    ]


def rates(toy: Any, work_dir: Path, epochs: int, **options: Any) -> list[list[float]]:
    record = Rates()
    options = {"param_scheduler": schedule(epochs), **options}
    toy.make_runner(work_dir, epochs=epochs, hooks=(record,), **options).train()
    return record.values


def log_of(work_dir: Path) -> str:
    return "".join(path.read_text() for path in sorted(work_dir.glob("*/*.log"), key=lambda p: p.stat().st_mtime)[-1:])


@pytest.fixture(scope="module")
def two(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a run of two epochs, finished."""
    work_dir = tmp_path_factory.mktemp("two")
    rates(toy, work_dir, 2)
    return work_dir


def copy_of(work_dir: Path, to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(work_dir / "epoch_2.pth", to)
    return to


def test_more_epochs_follow_the_longer_schedule(toy, two, tmp_path):
    longer = rates(toy, tmp_path / "straight", 6)
    resumed = rates(toy, copy_of(two, tmp_path / "resumed"), 6, resume=True)
    assert resumed == longer[2 * PER_EPOCH :]
    assert len({tuple(row) for row in resumed}) == 4 * PER_EPOCH  # it does not stand still
    log = log_of(tmp_path / "resumed")
    assert "resumed at epoch 2 with another schedule" in log
    assert f"T_max {2 * PER_EPOCH} -> {6 * PER_EPOCH}" in log


def test_a_decay_by_epochs_is_brought_to_its_epoch(toy, tmp_path):
    def steps(milestones: list[int]) -> list[dict]:
        return [dict(type="MultiStepLR", milestones=milestones, gamma=0.1, by_epoch=True)]

    rates(toy, tmp_path, 2, param_scheduler=steps([1]))
    longer = rates(toy, tmp_path / "straight", 5, param_scheduler=steps([3]))
    assert rates(toy, tmp_path, 5, param_scheduler=steps([3]), resume=True) == longer[2 * PER_EPOCH :]


def test_another_batch_size_counts_in_its_own_steps(toy, two, tmp_path):
    def loader(runner_options: dict) -> dict:
        data = dict(
            batch_size=2, num_workers=0, dataset=toy.Data(12), sampler=dict(type="DefaultSampler", shuffle=True)
        )
        return {**runner_options, "train_dataloader": data}

    straight = rates(toy, tmp_path / "straight", 4, **loader({}))
    resumed = rates(toy, copy_of(two, tmp_path / "resumed"), 4, **loader({"resume": True}))
    assert len(straight) == 4 * 6 and resumed == straight[2 * 6 :]
    assert "steps an epoch 4 -> 6" in log_of(tmp_path / "resumed")
    meta = read_checkpoint(tmp_path / "resumed/epoch_4.pth")["meta"]
    assert (meta["epoch"], meta["iter"]) == (4, 24)


def test_another_rate_and_decay_are_followed(toy, two, tmp_path):
    wrapper = dict(
        constructor="MuonConstructor", optimizer=dict(type="MuonAdamW", lr=5e-4, muon_lr=0.01, weight_decay=0.5)
    )
    straight = rates(toy, tmp_path / "straight", 4, optim_wrapper=wrapper)
    work_dir = copy_of(two, tmp_path / "resumed")
    assert rates(toy, work_dir, 4, optim_wrapper=wrapper, resume=True) == straight[2 * PER_EPOCH :]
    log = log_of(work_dir)
    assert "initial_lr 0.02 -> 0.01" in log and "initial_lr 0.001 -> 0.0005" in log
    assert "weight_decay 0.05 -> 0.5" in log
    groups = read_checkpoint(work_dir / "epoch_4.pth")["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5, 0.0]


def test_what_did_not_change_is_loaded_as_it_was(toy, tmp_path):
    straight = rates(toy, tmp_path / "straight", 4)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    (tmp_path / "resumed/epoch_4.pth").unlink()
    (tmp_path / "resumed/epoch_3.pth").unlink()
    assert rates(toy, tmp_path / "resumed", 4, resume=True) == straight[2 * PER_EPOCH :]
    assert "another schedule" not in log_of(tmp_path / "resumed")
    one, other = (read_checkpoint(tmp_path / name / "epoch_4.pth") for name in ("straight", "resumed"))
    assert one["param_schedulers"] == other["param_schedulers"]


def test_an_optimizer_of_another_kind_is_refused(toy, two, tmp_path):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.1))
    with pytest.raises(UserError, match=r"epoch_2\.pth: .*optimizer.*set load_from"):
        rates(toy, copy_of(two, tmp_path), 4, optim_wrapper=wrapper, resume=True)


def test_a_finished_run_says_that_nothing_is_left(toy, two, tmp_path):
    work_dir = copy_of(two, tmp_path)
    assert rates(toy, work_dir, 2, resume=True) == []
    assert "nothing to do: 2 epochs are done; give --epochs M with M above 2" in log_of(work_dir)
