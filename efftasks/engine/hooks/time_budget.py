"""Train for a given time: the number of epochs follows from the measured time of steps, epochs and validations."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from mmengine.hooks import Hook

from efftasks.engine.resuming import ScheduleOfConfig
from efftasks.engine.time_plan import Costs, Position, epochs_in, seconds_left
from efftasks.structures.errors import UserError

__all__ = ["NewSchedule", "TimeBudget"]

_FIRST, _SKIPPED = 20, 12  # steps before the first plan, and those not measured: kernels compile, precisions are tried
_RESERVE, _LEAST_RESERVE = 0.03, 3.0  # share of the time, and seconds, kept for what is not measured
# A plan grows by more than this factor, and before this share of it is done: late, rates would rise again.
_GROWTH, _GROWS_UNTIL = 1.02, 0.75
_CHECKS = 10  # looks at the clock in an epoch


class NewSchedule(NamedTuple):
    """What another number of epochs changes in a training."""

    epochs: int
    param_scheduler: list[Any]  # configs
    hooks: tuple[tuple[str, str, Any, Any], ...]  # type of a hook, attribute, its old and its new value


class TimeBudget(Hook):
    """Set the number of epochs so that training, its last validation and checkpoint end in time.

    The first plan is made after some steps, and corrected at the end of each epoch and inside epochs: if the machine
    becomes slower, epochs are left out and learning rates continue on the schedule of the shorter training. If even the
    last epoch takes too long, it is cut.

    Args:
        seconds: in all, from ``started`` on.
        schedule: number of epochs -> :class:`NewSchedule`.
        started: on ``clock``.
        most: the largest number of epochs; None for any.
        clock: returns seconds.
    """

    priority = 80  # after the learning rates, before the checkpoint of the epoch, which must know if it is the last

    def __init__(
        self,
        seconds: float,
        schedule: Callable[[int], NewSchedule],
        started: float,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.most = seconds, most
        self._schedule, self._clock = schedule, clock
        self._end = started + seconds - max(_LEAST_RESERVE, _RESERVE * seconds)
        self._steps: deque[float] = deque(maxlen=100)  # recent durations
        self._epoch_start = self._last_step = self._val_start = 0.0
        self._in_steps = self._in_validations = 0.0  # of the current epoch
        self._epoch_cost, self._val_cost = 1.0, 0.0
        self._is_measured = False
        self._count = 0  # steps in all

    def before_train(self, runner: Any) -> None:
        """Let a resumed training go on until the first plan."""
        if self._clock() >= self._end:
            raise UserError(f"--max-minutes: {self.seconds / 60:g} minutes were over before the first step; give more")
        if runner.epoch >= runner.max_epochs:
            self._set_epochs(runner, runner.epoch + 1)

    def before_train_epoch(self, runner: Any) -> None:
        """Measure what the last epoch took beside its steps and validation."""
        now = self._clock()
        if self._epoch_start:
            rest = now - self._epoch_start - self._in_steps - self._in_validations
            self._epoch_cost = max(0.0, rest - sum(self._steps) / max(1, len(self._steps)))  # and the first step
        self._epoch_start = self._last_step = now
        self._in_steps = self._in_validations = 0.0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Measure a step, and plan after the first ones and from time to time."""
        now = self._clock()
        duration, self._last_step = now - self._last_step, now
        self._count += 1
        if batch_idx > 0:
            self._in_steps += duration
            self._steps.append(duration)
        steps = len(runner.train_dataloader)
        first = min(_FIRST, max(2, steps - 1))
        if self._count == _SKIPPED < first:
            self._steps.clear()
        if not self._steps:
            return
        at = self._position(runner, runner.epoch, batch_idx + 1)
        if self._count == first:
            self._plan(runner, at, may_grow=True)
        elif self._count > first and (batch_idx + 1) % max(1, steps // _CHECKS) == 0 and batch_idx + 1 < steps:
            self._plan(runner, at, may_grow=False)
            is_last = runner.epoch + 1 >= runner.max_epochs
            if is_last and now + self._costs(runner).validation + self._epoch_cost / 2 > self._end:
                runner.logger.warning(
                    f"--max-minutes: the machine is slower, the last epoch ends after {batch_idx + 1} of {steps} steps"
                )
                runner.train_loop.ends_epoch = True

    def after_train_epoch(self, runner: Any) -> None:
        """Plan, before the checkpoint is written."""
        if self._steps:
            at = self._position(runner, runner.epoch + 1, 0, validated=False)
            self._plan(runner, at, may_grow=_may_grow(runner.epoch + 1, runner.max_epochs))

    def before_val(self, runner: Any) -> None:
        """Start the clock."""
        self._val_start = self._clock()

    def after_val(self, runner: Any) -> None:
        """Measure a validation, and end training if no further epoch fits."""
        duration = self._clock() - self._val_start
        self._in_validations += duration
        self._val_cost = duration if not self._val_cost else max(duration, 0.5 * (self._val_cost + duration))
        if self._steps and runner.epoch < runner.max_epochs:
            at = self._position(runner, runner.epoch, 0)
            self._plan(runner, at, may_grow=_may_grow(runner.epoch, runner.max_epochs))

    def _position(self, runner: Any, epochs: int, steps: int, validated: bool = True) -> Position:
        loop = runner.train_loop
        interval = loop.val_interval if runner.val_loop is not None else 0
        return Position(epochs, steps, len(runner.train_dataloader), interval, loop.val_begin, validated)

    def _costs(self, runner: Any) -> Costs:
        step = sum(self._steps) / len(self._steps)
        validation = self._val_cost
        if not validation and runner.val_loop is not None:  # not measured yet: a step has a backward pass as well
            images = len(runner.val_loop.dataloader.dataset)
            validation = 1.0 + 0.6 * images * step / (runner.train_dataloader.batch_size or 1)
        return Costs(step, self._epoch_cost, validation)

    def _plan(self, runner: Any, at: Position, may_grow: bool) -> None:
        """Set the number of epochs that fit."""
        costs, left = self._costs(runner), self._end - self._clock()
        fitting = epochs_in(left, at, costs, self.most)
        least = at.epochs + 1 if at.steps else max(1, at.epochs)
        needed = (self.seconds - left + seconds_left(least, at, costs)) / 60
        if 60 * needed > self.seconds and not self._is_measured:
            raise UserError(
                f"--max-minutes: got {self.seconds / 60:g}, but one epoch with its validation takes about "
                f"{needed:.1f} minutes here; give at least {1.1 * needed + 0.1:.1f}, or less data"
            )
        epochs, old = max(fitting, least), runner.max_epochs
        grows = epochs > old and may_grow and (epochs > _GROWTH * old or not self._is_measured)
        if epochs < old or grows:
            self._set_epochs(runner, epochs)
            self._continue_schedule(runner, at)
            per_epoch = at.steps_per_epoch * costs.step + costs.epoch
            runner.logger.info(
                f"--max-minutes {self.seconds / 60:g}: {epochs} epochs fit, {old} were planned ({per_epoch:.3g} s an "
                f"epoch, {costs.validation:.3g} s a validation, {left:.0f} s left)"
            )
        self._is_measured = True

    def _set_epochs(self, runner: Any, epochs: int) -> None:
        loop = runner.train_loop
        loop._max_epochs, loop._max_iters = epochs, epochs * len(runner.train_dataloader)
        runner.message_hub.update_info("max_epochs", epochs)
        runner.message_hub.update_info("max_iters", loop._max_iters)

    def _continue_schedule(self, runner: Any, at: Position) -> None:
        """Learning rates and hooks of the new number of epochs, at the current step."""
        new = self._schedule(runner.max_epochs)
        for scheduler in runner.param_schedulers:
            for group in runner.optim_wrapper.param_groups:
                group[scheduler.param_name] = group[f"initial_{scheduler.param_name}"]
        runner.param_schedulers = runner.build_param_scheduler(new.param_scheduler)
        schedule = ScheduleOfConfig(runner.optim_wrapper, runner.param_schedulers)
        schedule.restore(at.epochs, at.steps_per_epoch, at.steps)
        for kind, attribute, old, value in new.hooks:
            for hook in runner.hooks:
                if type(hook).__name__ == kind and getattr(hook, attribute, None) == old:
                    setattr(hook, attribute, value)


def _may_grow(done: int, planned: int) -> bool:
    return done <= max(1, _GROWS_UNTIL * planned)
