"""Training for a given time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

    def prepare(self, cfg: LinkedConfig) -> Callable[[LinkedConfig], TimeBudget]:
        """Set the loop of a config, before its batch size is set.

        Returns:
            The same config, with its final batch size -> the hook that chooses the number of epochs.

        Raises:
            UserError: the time is not positive or not finite, training does not count epochs, has several optimizers,
                or runs in several processes, each of which would have its own clock.
        """
        if not 0 < self.minutes < math.inf:
            raise UserError(f"--max-minutes: got {self.minutes:g}, expected a number above 0")
        loop, schedulers = cfg.get("train_cfg") or {}, cfg.get("param_scheduler") or []
        if bare_name(loop.get("type", "EpochBasedTrainLoop")) not in ("EpochBasedTrainLoop", "CutEpochLoop"):
            raise UserError(f"--max-minutes: train_cfg.type is {loop.get('type')}, expected EpochBasedTrainLoop")
        if not isinstance(schedulers, (list, tuple)):
            raise UserError("--max-minutes: param_scheduler has parts for several optimizers, expected a list")
        if cfg.get("launcher", "none") != "none":
            raise UserError("--max-minutes: it plans in one process, expected --epochs with --launcher")
        loop.pop("by_epoch", None)
        loop["type"] = "CutEpochLoop"
        linked = LinkedConfig.of(copy.deepcopy(cfg))

        def hook(final: LinkedConfig) -> TimeBudget:
            schedules = _schedules(linked, final.get("param_scheduler") or [])
            return TimeBudget(60 * self.minutes, schedules, self.started, self.most_epochs)

        return hook


def _schedules(cfg: LinkedConfig, scaled: Sequence[Mapping[str, Any]]) -> Callable[[int], NewSchedule]:
    """Number of epochs -> what it changes since the last call.

    Args:
        cfg: is linked for each number.
        scaled: the schedulers with what the batch size has changed in them: absolute rates, and numbers of steps.
    """
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
        schedulers = [dict(scheduler) for scheduler in new.get("param_scheduler") or []]
        if len(schedulers) == len(scaled):
            schedulers = [_with_batch(*pair) for pair in zip(schedulers, scaled)]
        return NewSchedule(epochs, schedulers, tuple(changed))

    return schedule


def _with_batch(scheduler: dict[str, Any], scaled: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler with what the batch size has changed in it."""
    if not scheduler.get("by_epoch", True):
        return dict(scaled)
    return {**scheduler, **({"eta_min": scaled["eta_min"]} if scaled.get("eta_min") else {})}
