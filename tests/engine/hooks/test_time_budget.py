"""Training that ends in time, on a clock that steps and validations move."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from efftasks.checkpoints.files import read_checkpoint
from efftasks.engine.hooks.time_budget import NewSchedule, TimeBudget
from efftasks.structures.errors import UserError

STEPS, VALIDATION = 4, 3.0  # steps of an epoch of the toy, seconds


class Clock:
    """Seconds that pass in steps and validations."""

    def __init__(self, slow_from: float = 1e9, factor: float = 1.0) -> None:
        self.now, self.slow_from, self.factor = 0.0, slow_from, factor

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds * (self.factor if self.now >= self.slow_from else 1.0)


class Spend(Hook):
    """Makes steps take a second, and records the learning rates."""

    priority = "VERY_HIGH"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rates: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append(runner.optim_wrapper.param_groups[0]["lr"])
        self.clock.spend(1.0)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.clock.spend(VALIDATION)


def cosine(epochs: int) -> list[dict]:
    return [dict(type="CosineAnnealingLR", T_max=epochs, eta_min_ratio=0.0, by_epoch=True, convert_to_iter_based=True)]


def train(toy, folder: Path, seconds: float, clock: Clock, epochs: int = 6, interval: int = 3, **options):
    spend = Spend(clock)
    runner = toy.make_runner(
        folder,
        epochs=epochs,
        hooks=(spend, *options.pop("hooks", ())),
        param_scheduler=cosine(epochs),
        train_cfg=dict(type="CutEpochLoop", max_epochs=epochs, val_interval=interval),
        **options,
    )
    runner.register_hook(TimeBudget(seconds, lambda n: NewSchedule(n, cosine(n), ()), clock.now, clock=clock))
    runner.train()
    return runner, spend.rates


@pytest.mark.parametrize("seconds", [40, 150])
def test_it_ends_in_time_and_uses_it_with_the_whole_decay(toy, tmp_path, seconds):
    clock = Clock()
    runner, rates = train(toy, tmp_path, seconds, clock)
    assert seconds - STEPS - 2 * VALIDATION - 4 - 0.03 * seconds <= clock.now <= seconds
    assert len(rates) == STEPS * runner.max_epochs and runner.epoch == runner.max_epochs
    assert rates[-1] < 0.02 * rates[0] and rates[0] == max(rates)
    straight = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * i / len(rates))).item()) for i in range(len(rates))]
    late = slice(2 * len(rates) // 3, None)
    assert rates[late] == pytest.approx([rates[0] * share for share in straight][late], rel=0.05, abs=1e-6)
    assert (tmp_path / f"epoch_{runner.epoch}.pth").exists()


@pytest.mark.parametrize("slow_from", [30, 100])
def test_a_machine_that_becomes_slower_ends_in_time_too(toy, tmp_path, slow_from):
    clock = Clock(slow_from, factor=2.0)
    runner, rates = train(toy, tmp_path, 150, clock)
    assert clock.now <= 150
    assert clock.now >= 150 - 2 * (STEPS + 2 * VALIDATION) - 4.5
    assert rates[-1] < 0.1 * rates[0]
    assert read_checkpoint(tmp_path / f"epoch_{runner.epoch}.pth")["meta"]["epoch"] == runner.epoch


def test_an_epoch_that_is_cut_still_ends_with_a_validation_and_a_checkpoint(toy, tmp_path):
    clock = Clock(slow_from=81, factor=8.0)
    runner, rates = train(toy, tmp_path, 100, clock, interval=100)
    assert len(rates) < STEPS * runner.epoch  # the last epoch was cut
    assert clock.now <= 100 + 7 * VALIDATION  # its validation became eight times as slow unforeseen
    assert (tmp_path / f"epoch_{runner.epoch}.pth").exists() and (tmp_path / "best.pth").exists()


def test_less_than_an_epoch_is_refused_with_what_it_takes(toy, tmp_path):
    with pytest.raises(UserError, match=r"--max-minutes: got 0\.1, but one epoch with its validation takes about"):
        train(toy, tmp_path, 6, Clock())


def test_a_resumed_run_has_the_time_anew(toy, tmp_path):
    train(toy, tmp_path, 40, Clock())
    done = max(int(path.stem[6:]) for path in tmp_path.glob("epoch_*.pth"))
    clock = Clock()
    runner, _ = train(toy, tmp_path, 60, clock, epochs=2, resume=True)
    assert runner.epoch > done and clock.now <= 60


def test_hooks_that_begin_at_an_epoch_move_with_the_schedule(toy, tmp_path):
    switch = dict(type="mmdet.PipelineSwitchHook", switch_epoch=5, switch_pipeline=[toy.Noise()])
    clock = Clock()
    runner = toy.make_runner(
        tmp_path,
        epochs=6,
        hooks=(Spend(clock), switch),
        param_scheduler=cosine(6),
        train_cfg=dict(type="CutEpochLoop", max_epochs=6, val_interval=3),
    )
    changes = (("PipelineSwitchHook", "switch_epoch", 5, 2),)
    runner.register_hook(TimeBudget(30, lambda n: NewSchedule(n, cosine(n), changes), 0.0, clock=clock))
    runner.train()
    assert [h.switch_epoch for h in runner.hooks if type(h).__name__ == "PipelineSwitchHook"] == [2]
