"""Links `max_epochs` and `schedule` of a config to the training loop, learning rates, hooks and losses.

``schedule`` names points of training: ``schedule = dict(warmup_iters=500, flat_until=29 / 58, no_aug_from=50 / 58)``.
A whole number is an epoch (or an iteration, where ``by_epoch=False``), a number between 0 and 1 a share of
``max_epochs``, None the end of training. An argument that is a number of epochs may be the name of a point or a share;
the ``end`` of a scheduler may also be None. A scheduler or hook that would begin at the end of training, or end at its
beginning, is left out: no warm-up with ``warmup_epochs=0``, no decay with ``flat_until=None``. ``T_max=None`` is
``end - begin``.

``param_scheduler`` may be a dict by name, which merges with that of a base; mmengine gets the list of its values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import declared
from efftasks.linking.hooks import hooks_of
from efftasks.linking.links import Links, Place, unshared_copy, walk
from efftasks.linking.sizes import dotted
from efftasks.structures.errors import UserError

__all__ = ["is_by_name", "link_schedule", "schedule_warnings", "scheduler_names"]

SOURCE = "max_epochs"
POINTS = "schedule"


def link_schedule(cfg: Config, links: Links) -> None:
    """Fill every number that depends on ``max_epochs`` or on a point of ``schedule``.

    Raises:
        UserError: ``max_epochs`` and ``train_cfg.max_epochs`` contradict each other, or there is no such point.
    """
    points = _Points(cfg.get(POINTS) or {}, _link_epochs(cfg, links))
    _drop_schedulers(cfg, links, points)
    if is_by_name(cfg.get("param_scheduler")):
        # mmengine expects a list.
        schedulers = [unshared_copy(scheduler) for scheduler in cfg.param_scheduler.values() if scheduler is not None]
        links.fill(("param_scheduler",), schedulers, "param_scheduler")
    schedulers = cfg.get("param_scheduler") or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else ()):
        _link_scheduler(scheduler, ("param_scheduler", i), points, links)
    _order_hooks(cfg, points)
    for place, hook in list(hooks_of(cfg)):
        _link_hook(hook, place, points, links)
    for place, part in walk(cfg.get("model") or {}, ("model",)):
        for path in declared(part.get("type"), "linked_progress"):
            _link_progress(part, place, tuple(path.split(".")), points, links)


def is_by_name(schedulers: Any) -> bool:
    """Whether ``param_scheduler`` is a dict by name, and not one scheduler, nor lists for several optimizers."""
    return (
        isinstance(schedulers, dict)
        and "type" not in schedulers
        and all(part is None or isinstance(part, dict) for part in schedulers.values())
    )


def scheduler_names(cfg: Config) -> list[str]:
    """The names of the schedulers in effect of a config that is not linked yet, in the order of their list.

    Raises:
        UserError: one names a point that ``schedule`` does not have.
    """
    points = _Points(cfg.get(POINTS) or {}, None)
    names = cfg.get("param_scheduler") or {}
    return [name for name in names if names[name] is not None and _unused_point(cfg, name, points) is None]


def epochs_of_share(share: float, epochs: int) -> int:
    """A share of training as a number of epochs, at least one."""
    return max(1, int(share * epochs + 0.5))


def schedule_warnings(cfg: Config) -> list[str]:
    """A warning for each scheduler of a linked config that does not end when training does.

    That happens where a config changes only one of the two. A scheduler with an ``end`` may end earlier: the learning
    rate then stays constant.
    """
    epochs = (cfg.get("train_cfg") or {}).get("max_epochs")
    schedulers = cfg.get("param_scheduler") or []
    if not isinstance(epochs, int) or not isinstance(schedulers, (list, tuple)):
        return []
    warnings = []
    for i, scheduler in enumerate(schedulers):
        begin = scheduler.get("begin", 0)
        last = scheduler.get("end") or begin + (scheduler.get("T_max") or 0)
        subject = f"param_scheduler.{i}: {scheduler.get('type')} ends at epoch {last}, training at {epochs}"
        if not scheduler.get("by_epoch", True) or last == begin:
            continue
        if last > epochs > begin:
            warnings.append(f"{subject}: its end is never reached; set the one or the other")
        elif last < epochs and "T_max" in scheduler and scheduler.get("end") is None:
            warnings.append(f"{subject}: the rate rises again after it; set the one or the other")
    return warnings


class _Points:
    """The points of a schedule.

    Args:
        stated: values of the config by name.
        epochs: of training; None if it counts iterations.
    """

    def __init__(self, stated: Mapping[str, Any], epochs: int | None) -> None:
        for name, value in stated.items():
            is_whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not (value is None or is_whole or _is_share(value)):
                raise UserError(
                    f"{POINTS}.{name}: got {value!r}, expected a whole number, a share of training between 0 and 1, or "
                    "None for its end"
                )
        self._stated, self.epochs = stated, epochs

    def stated(self, name: str, place: Place) -> Any:
        """The config's value of a point, whose name is at a place of the config."""
        if name not in self._stated:
            near = difflib.get_close_matches(name, self._stated, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f", it has {', '.join(self._stated) or 'none'}"
            raise UserError(f"{dotted(place)}: got {name!r}, but `{POINTS}` has no such point{hint}")
        return self._stated[name]

    def share(self, value: Any, place: Place) -> float:
        """A point, a share or an epoch as a share of training, to sort by."""
        stated = self.stated(value, place) if isinstance(value, str) else value
        if stated is None:
            return 1.0
        return stated / (self.epochs or 1) if isinstance(stated, int) else stated

    def number(self, value: Any, place: Place, by_epoch: bool = True) -> tuple[int, str] | None:
        """A point, a share or None as a number of epochs or iterations, with its source; None if nothing changes."""
        source = SOURCE
        if isinstance(value, str):
            source = f"{POINTS}.{value}"
            value = self.stated(value, place)
        elif self.epochs is None or not (value is None or _is_share(value)):
            return None
        if isinstance(value, int):
            return value, source
        if not by_epoch:
            raise UserError(f"{source}: got {value!r}, but {dotted(place)} counts iterations, expected a whole number")
        if self.epochs is None:
            raise UserError(f"{source}: got {value!r}, a share of max_epochs, and the config states none")
        return self.epochs if value is None else epochs_of_share(value, self.epochs), source


def _link_epochs(cfg: Config, links: Links) -> int | None:
    loop = cfg.get("train_cfg") or {}
    stated, epochs = loop.get("max_epochs"), cfg.get(SOURCE)
    if stated is not None and epochs is not None and stated != epochs:
        raise UserError(
            f"max_epochs: got {epochs}, but the config states train_cfg.max_epochs={stated} itself; leave that out, or "
            "set both"
        )
    if loop and stated is None and epochs is not None:
        links.fill(("train_cfg", "max_epochs"), epochs, SOURCE)
    return stated if epochs is None else epochs


def _drop_schedulers(cfg: Config, links: Links, points: _Points) -> None:
    schedulers = cfg.get("param_scheduler")
    if not is_by_name(schedulers):
        return
    for name in schedulers:
        point = _unused_point(cfg, name, points)
        if point is not None:
            links.fill(("param_scheduler", name), None, f"{POINTS}.{point}")


def _unused_point(cfg: Config, name: str, points: _Points) -> str | None:
    """The point by which a scheduler begins after training or ends at once; None if it does neither."""
    scheduler = cfg.param_scheduler[name] or {}
    for key, unused_if in (("begin", None), ("end", 0)):
        point = scheduler.get(key)
        if isinstance(point, str) and points.stated(point, ("param_scheduler", name, key)) == unused_if:
            return point
    return None


def _link_scheduler(scheduler: dict[str, Any], place: Place, points: _Points, links: Links) -> None:
    by_epoch = scheduler.get("by_epoch", True)
    begin = scheduler.get("begin", 0)
    number = None if begin is None else points.number(begin, (*place, "begin"), by_epoch)
    if number is not None:
        links.fill((*place, "begin"), *number)
        begin = number[0]
    end = scheduler.get("end", 0)
    number = None if end is None and not by_epoch else points.number(end, (*place, "end"), by_epoch)
    if number is not None:
        # In very short trainings both may be the same epoch, which mmengine refuses.
        links.fill((*place, "end"), max(number[0], begin + 1), number[1])
    if by_epoch and points.epochs is not None and "T_max" in scheduler and scheduler["T_max"] is None:
        links.fill((*place, "T_max"), max(1, scheduler.get("end", points.epochs) - begin), SOURCE)


def _link_hook(hook: dict[str, Any], place: Place, points: _Points, links: Links) -> None:
    for key in declared(hook.get("type"), "linked_epochs"):
        value = hook.get(key)
        if value is None:
            continue
        if isinstance(value, str) and place[0] == "default_hooks" and points.stated(value, (*place, key)) is None:
            links.remove(place, f"{POINTS}.{value}")  # it would begin after the last epoch
            return
        number = points.number(value, (*place, key))
        if number is not None:
            links.fill((*place, key), *number)


def _order_hooks(cfg: Config, points: _Points) -> None:
    """Sort the default hooks that begin at an epoch by that epoch.

    A run that is resumed late runs all of them at once, and the last one decides the pipeline. The order of the config
    is lost when it is dumped, which sorts by name.
    """
    hooks = cfg.get("default_hooks") or {}
    starts = []
    for name, hook in hooks.items():
        for key in declared(hook.get("type"), "linked_epochs") if isinstance(hook, dict) else ():
            if hook.get(key) is not None:
                starts.append((points.share(hook[key], ("default_hooks", name, key)), name))
    for _, name in sorted(starts, key=lambda start: start[0]):  # of one epoch as the config has them
        hooks[name] = hooks.pop(name)


def _link_progress(part: dict[str, Any], place: Place, path: Place, points: _Points, links: Links) -> None:
    """Fill an argument that is training progress, 0 in the first epoch and 1 in the last: one number or several."""
    node: Any = part
    for key in path[:-1]:
        node = node.get(key) or {}
    value = node.get(path[-1])
    values = value if isinstance(value, (list, tuple)) else [value]
    for name in (x for x in values if isinstance(x, str)):
        number = points.number(name, (*place, *path))
        if points.epochs is None:
            raise UserError(
                f"{dotted((*place, *path))}: is training progress, which needs max_epochs; the config has none"
            )
        assert number is not None
        progress = number[0] / max(1, points.epochs - 1)
        value = progress if isinstance(value, str) else type(value)(progress if x == name else x for x in value)
        links.fill((*place, *path), value, number[1])
    if value is not values and isinstance(value, (list, tuple)) and value[0] > value[-1]:
        # It begins at a point that is left out: from its end to its end, it is never active.
        links.fill((*place, *path), type(value)(min(x, value[-1]) for x in value), POINTS)


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1
