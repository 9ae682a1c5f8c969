"""`max_epochs`: from the top of a config to the training loop, the schedules of rates and the hooks of an epoch.

Where epochs are counted, None stands for the end of training, and a number between 0 and 1 for a share of it:
``end=None``, ``begin=29 / 58``, ``switch_epoch=90 / 100``. Whole numbers stay what they are. ``T_max=None`` is the way
from begin to end.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from efftasks.linking.links import Links
from efftasks.structures.errors import UserError

__all__ = ["epochs_of_share", "link_schedule", "schedule_faults"]

SOURCE = "max_epochs"
# Arguments of hooks that count epochs.
_HOOK_EPOCHS = ("switch_epoch", "epoch", "begin_epoch", "num_last_epochs")


def link_schedule(cfg: Config, links: Links) -> None:
    """Fill every number of epochs that depends on ``max_epochs``.

    Raises:
        UserError: ``max_epochs`` and ``train_cfg.max_epochs`` contradict each other.
    """
    loop = cfg.get("train_cfg") or {}
    stated, epochs = loop.get("max_epochs"), cfg.get(SOURCE)
    if stated is not None and epochs is not None and stated != epochs:
        raise UserError(
            f"max_epochs: got {epochs}, but the config states train_cfg.max_epochs={stated} itself; leave that out, or "
            "set both"
        )
    epochs = stated if epochs is None else epochs
    if epochs is None:
        return
    if loop and stated is None:
        links.fill(("train_cfg", "max_epochs"), epochs, SOURCE)
    schedulers = cfg.get("param_scheduler") or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else ()):
        if scheduler.get("by_epoch", True):
            _link_scheduler(scheduler, ("param_scheduler", i), epochs, links)
    for i, hook in enumerate(cfg.get("custom_hooks") or ()):
        for key in _HOOK_EPOCHS:
            if _is_share(hook.get(key)):
                links.fill(("custom_hooks", i, key), epochs_of_share(hook[key], epochs), SOURCE)


def epochs_of_share(share: float, epochs: int) -> int:
    """A share of training in whole epochs, at least one."""
    return max(1, int(share * epochs + 0.5))


def schedule_faults(cfg: Config) -> list[str]:
    """The schedulers of a linked config that do not end with training, a sentence each.

    That is the classic fault of a config that changed one of both. A schedule that has an ``end`` may end before
    training does: the rate stays.
    """
    epochs = (cfg.get("train_cfg") or {}).get("max_epochs")
    schedulers = cfg.get("param_scheduler") or []
    if not isinstance(epochs, int) or not isinstance(schedulers, (list, tuple)):
        return []
    faults = []
    for i, scheduler in enumerate(schedulers):
        begin = scheduler.get("begin", 0)
        last = scheduler.get("end") or begin + (scheduler.get("T_max") or 0)
        named = f"param_scheduler.{i}: {scheduler.get('type')} ends at epoch {last}, training at {epochs}"
        if not scheduler.get("by_epoch", True) or last == begin:
            continue
        if last > epochs > begin:
            faults.append(f"{named}: its end is never reached; set the one or the other")
        elif last < epochs and "T_max" in scheduler and scheduler.get("end") is None:
            faults.append(f"{named}: the rate rises again after it; set the one or the other")
    return faults


def _link_scheduler(scheduler: dict[str, Any], place: tuple[Any, ...], epochs: int, links: Links) -> None:
    if _is_share(scheduler.get("begin")):
        links.fill((*place, "begin"), epochs_of_share(scheduler["begin"], epochs), SOURCE)
    begin = scheduler.get("begin", 0)
    if "end" in scheduler and (scheduler["end"] is None or _is_share(scheduler["end"])):
        end = epochs if scheduler["end"] is None else epochs_of_share(scheduler["end"], epochs)
        # In very short trainings, what would end where it begins begins after the last epoch.
        links.fill((*place, "end"), max(end, begin + 1), SOURCE)
    if "T_max" in scheduler and scheduler["T_max"] is None:
        links.fill((*place, "T_max"), max(1, scheduler.get("end", epochs) - begin), SOURCE)


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1
