"""The loggers of a training, added to those of its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config

from efftasks.engine.loggers.clearml import ClearmlTracker
from efftasks.engine.loggers.mlflow import MlflowTracker
from efftasks.engine.loggers.tracker import Tracker
from efftasks.engine.loggers.wandb import WandbTracker
from efftasks.structures.errors import UserError

__all__ = ["add_loggers"]

_TRACKERS: dict[str, type[Tracker]] = {kind.flag: kind for kind in (WandbTracker, MlflowTracker, ClearmlTracker)}
_ALWAYS = "LocalVisBackend"  # JSON lines
_TYPES = {"tensorboard": "TensorboardVisBackend", **{flag: kind.__name__ for flag, kind in _TRACKERS.items()}}


def add_loggers(cfg: Config, names: Sequence[str], project: str | None = None, group: str | None = None) -> None:
    """Add loggers to the visualizer of a config. Those of the config stay, and JSON lines are always written.

    Args:
        cfg: is changed.
        names: "tensorboard", "wandb", "mlflow", "clearml".
        project: of the experiment trackers; None leaves "efftasks", or what the config says.
        group: of runs that belong together, see :class:`efftasks.engine.loggers.tracker.Tracker`.

    Raises:
        UserError: a name is unknown, its package is not installed, or there is a project without a tracker.
    """
    for name in names:
        if name not in _TYPES:
            raise UserError(f"loggers: got {name!r}, expected some of {', '.join(_TYPES)}")
        if name in _TRACKERS:
            _TRACKERS[name].check_installed()
    visualizer = cfg.get("visualizer") or dict(type="Visualizer")
    backends: list[dict[str, Any]] = [dict(backend) for backend in visualizer.get("vis_backends") or ()]
    present = {backend["type"] for backend in backends}
    for kind in dict.fromkeys([_ALWAYS, *(_TYPES[name] for name in names)]):
        if kind not in present:
            backends.append(dict(type=kind))
    trackers = [backend for backend in backends if backend["type"] in {kind.__name__ for kind in _TRACKERS.values()}]
    if project is not None and not trackers:
        raise UserError(f"--logger-project: got {project!r} without a logger that has projects; give --logger, too")
    settings = {key: value for key, value in (("project", project), ("group", group)) if value is not None}
    for backend in trackers:
        backend.update(settings)
    cfg.visualizer = dict(visualizer, vis_backends=backends)
