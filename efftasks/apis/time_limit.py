"""Training for a given time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from efftasks.config import load_config
from efftasks.engine.hooks.time_budget import NewSchedule, TimeBudget
from efftasks.linking.declared import bare_name, declared
from efftasks.linking.hooks import hooks_of
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError

__all__ = ["TimeLimit"]


@dataclass(frozen=True)
class TimeLimit:
    """The time of a training: its number of epochs is chosen while it runs, so that it ends in time.

    Attributes:
        minutes: from ``started`` on, with the last validation and checkpoint.
        most_epochs: the largest number of epochs; None for any.
        started: on ``time.monotonic``.
    """

    minutes: float
    most_epochs: int | None = None
    started: float = field(default_factory=time.monotonic)

    def prepare(self, cfg: LinkedConfig) -> None:
        """Set the loop of a config.

        Raises:
            UserError: the time is not positive, or training does not count epochs or has several optimizers.
        """
        if not self.minutes > 0:
            raise UserError(f"--max-minutes: got {self.minutes:g}, expected a number above 0")
        loop, schedulers = cfg.get("train_cfg") or {}, cfg.get("param_scheduler") or []
        if bare_name(loop.get("type", "EpochBasedTrainLoop")) not in ("EpochBasedTrainLoop", "CutEpochLoop"):
            raise UserError(f"--max-minutes: train_cfg.type is {loop.get('type')}, expected EpochBasedTrainLoop")
        if not isinstance(schedulers, (list, tuple)):
            raise UserError("--max-minutes: param_scheduler has parts for several optimizers, expected a list")
        loop.pop("by_epoch", None)
        loop["type"] = "CutEpochLoop"

    def hook(self, cfg: LinkedConfig) -> TimeBudget:
        """The hook that chooses the number of epochs of a prepared config."""
        return TimeBudget(60 * self.minutes, _schedules(cfg), self.started, self.most_epochs)


def _schedules(cfg: LinkedConfig) -> Callable[[int], NewSchedule]:
    """Number of epochs -> what it changes since the last call."""
    current = cfg

    def schedule(epochs: int) -> NewSchedule:
        nonlocal current
        new = load_config(current, {"train_cfg.max_epochs": epochs})
        before, after = dict(hooks_of(current)), dict(hooks_of(new))
        changed = [
            (bare_name(hook["type"]), key, before[place].get(key), hook.get(key))
            for place, hook in after.items()
            for key in declared(hook.get("type"), "linked_epochs")
            if place in before and before[place].get(key) != hook.get(key)
        ]
        current = new
        return NewSchedule(epochs, [dict(scheduler) for scheduler in new.get("param_scheduler") or []], tuple(changed))

    return schedule
