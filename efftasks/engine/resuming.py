"""Resuming with the schedule of the config, where it differs from that of the checkpoint."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["ScheduleOfConfig", "check_same_groups"]

# Running counters of a scheduler; the rest of its state are its arguments.
_COUNTERS = {"last_step", "_global_step", "_last_value", "verbose", "base_values"}


class ScheduleOfConfig:
    """Learning rates and schedulers as built from the config, before those of a checkpoint are loaded.

    Args:
        optim_wrapper: as built.
        schedulers: mmengine's parameter schedulers, as built. Those that depend on a metric are ignored.
    """

    def __init__(self, optim_wrapper: Any, schedulers: Sequence[Any]) -> None:
        self._wrapper = optim_wrapper
        self._schedulers = [x for x in schedulers if not getattr(x, "need_val_args", False)]
        self._groups = [_settings(group) for group in optim_wrapper.param_groups]
        self._states = [copy.deepcopy(scheduler.state_dict()) for scheduler in self._schedulers]

    def changes(self) -> list[str]:
        """The differences from the loaded state, as ``name old -> new`` without duplicates."""
        scheduled = {scheduler.param_name for scheduler in self._schedulers}
        changes = []
        for i, (scheduler, fresh) in enumerate(zip(self._schedulers, self._states)):
            loaded = scheduler.state_dict()
            changes += [
                f"param_scheduler.{i} ({type(scheduler).__name__}) {change}"
                for change in _differences(loaded, fresh, fresh.keys() - _COUNTERS)
            ]
        for group, fresh in zip(self._wrapper.param_groups, self._groups):
            changes += _differences(group, fresh, fresh.keys() - scheduled)
        return list(dict.fromkeys(changes))

    def restore(self, epochs: int, steps_per_epoch: int, steps: int = 0) -> None:
        """Restore the learning rates and schedulers of the config, and step them to the current point of training.

        Args:
            epochs: number of finished epochs; 0 if training is by iterations.
            steps_per_epoch: with the data of the config.
            steps: number of finished steps beside those of ``epochs``.
        """
        for group, fresh in zip(self._wrapper.param_groups, self._groups):
            group.update(fresh)
        for scheduler, fresh in zip(self._schedulers, self._states):
            scheduler.load_state_dict(copy.deepcopy(fresh))
        by_epoch = [scheduler for scheduler in self._schedulers if scheduler.by_epoch]
        by_step = [scheduler for scheduler in self._schedulers if not scheduler.by_epoch]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns that the optimizer took no steps in between
            for _ in range(epochs):
                for _ in range(steps_per_epoch):
                    _step(by_step)
                _step(by_epoch)
            for _ in range(steps):
                _step(by_step)


def check_same_groups(optim_wrapper: Any, saved: Mapping[str, Any], name: str) -> None:
    """Check that the state of an optimizer can be loaded.

    Args:
        optim_wrapper: as built from the config.
        saved: state dict of an optimizer wrapper.
        name: of the checkpoint, for the message.

    Raises:
        UserError: it is of another optimizer, or has other parameter groups.
    """
    built = optim_wrapper.optimizer.state_dict()["param_groups"]
    loaded = saved.get("param_groups") or []
    counts = [[len(group["params"]) for group in groups] for groups in (loaded, built)]
    loaded_keys = {key for group in loaded for key in group}
    built_keys = {key for group in built for key in group}
    unknown = {key for key in loaded_keys - built_keys if not key.startswith("initial_")}
    is_other = bool(unknown and built_keys - loaded_keys)
    if counts[0] != counts[1] or is_other:
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
