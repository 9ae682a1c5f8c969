"""Bringing a resumed training to the schedule of its config, where that is another than the checkpoint's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["ScheduleOfConfig", "check_same_groups"]

# What a scheduler counts while it runs; everything else of its state is how it was made.
_COUNTERS = {"last_step", "_global_step", "_last_value", "verbose", "base_values"}


class ScheduleOfConfig:
    """Rates and schedulers as the config makes them, before a checkpoint's take their place.

    Args:
        optim_wrapper: fresh, with fresh schedulers.
        schedulers: mmengine's parameter schedulers. Those that go by a metric are left alone.
    """

    def __init__(self, optim_wrapper: Any, schedulers: Sequence[Any]) -> None:
        self._wrapper = optim_wrapper
        self._schedulers = [x for x in schedulers if not getattr(x, "need_val_args", False)]
        self._groups = [_settings(group) for group in optim_wrapper.param_groups]
        self._states = [copy.deepcopy(scheduler.state_dict()) for scheduler in self._schedulers]

    def changes(self) -> list[str]:
        """What differs from what has been loaded by now, as ``name old -> new``, each once."""
        scheduled = {scheduler.param_name for scheduler in self._schedulers}
        found = []
        for i, (scheduler, fresh) in enumerate(zip(self._schedulers, self._states)):
            loaded = scheduler.state_dict()
            found += [
                f"param_scheduler.{i} ({type(scheduler).__name__}) {change}"
                for change in _differences(loaded, fresh, fresh.keys() - _COUNTERS)
            ]
        for group, fresh in zip(self._wrapper.param_groups, self._groups):
            found += _differences(group, fresh, fresh.keys() - scheduled)
        return list(dict.fromkeys(found))

    def restore(self, epochs: int, steps_per_epoch: int, steps: int = 0) -> None:
        """Put the config's rates and schedulers back, and take them to where training is, step by step.

        Args:
            epochs: how many are done; 0 where training counts none.
            steps_per_epoch: the config's.
            steps: how many are done beside those of whole epochs.
        """
        for group, fresh in zip(self._wrapper.param_groups, self._groups):
            group.update(fresh)
        for scheduler, fresh in zip(self._schedulers, self._states):
            scheduler.load_state_dict(copy.deepcopy(fresh))
        by_epoch = [scheduler for scheduler in self._schedulers if scheduler.by_epoch]
        by_step = [scheduler for scheduler in self._schedulers if not scheduler.by_epoch]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer took no steps between
            for _ in range(epochs):
                for _ in range(steps_per_epoch):
                    _step(by_step)
                _step(by_epoch)
            for _ in range(steps):
                _step(by_step)


def check_same_groups(optim_wrapper: Any, saved: Mapping[str, Any], name: str) -> None:
    """Check that an optimizer's state can be loaded.

    Args:
        optim_wrapper: fresh.
        saved: the state of an optimizer wrapper.
        name: of the checkpoint, for the message.

    Raises:
        UserError: it is of another optimizer, or of other groups of parameters.
    """
    ours = optim_wrapper.optimizer.state_dict()["param_groups"]
    theirs = saved.get("param_groups") or []
    counts = [[len(group["params"]) for group in groups] for groups in (theirs, ours)]
    unknown = {key for group in theirs for key in group} - {key for group in ours for key in group}
    absent = {key for group in ours for key in group} - {key for group in theirs for key in group}
    other = {key for key in unknown if not key.startswith("initial_")} and absent
    if counts[0] != counts[1] or other:
        raise UserError(
            f"{name}: training cannot be resumed from it, the optimizer of the config is another one (its groups have "
            f"{counts[1]} parameters, the file's {counts[0]}); to start anew from its weights, set load_from"
        )


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}


def _differences(loaded: Mapping[str, Any], fresh: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [
        f"{key} {_text(loaded.get(key))} -> {_text(fresh[key])}"
        for key in sorted(keys)
        if key not in loaded or loaded[key] != fresh[key]
    ]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _step(schedulers: Sequence[Any]) -> None:
    for scheduler in schedulers:
        scheduler.step()
