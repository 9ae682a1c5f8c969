"""The backends of a runner's visualizer, each behind a guard."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from efftasks.engine.loggers.guard import GuardedBackend, GuardedTracker
from efftasks.engine.loggers.tracker import TrackedRun, Tracker
from efftasks.registry import VIS_BACKENDS

__all__ = ["guarded_backends"]


def guarded_backends(backends: Sequence[Mapping[str, Any]], run: TrackedRun) -> list[dict[str, Any]]:
    """The ``vis_backends`` of a config with a guard around each, by the names that they have without one.

    Raises:
        UserError: the package of a tracker is not installed.
    """
    guarded = []
    for backend in backends:
        inner: dict[str, Any] = copy.deepcopy(dict(backend))
        kind = inner["type"]
        kind = VIS_BACKENDS.get(kind) if isinstance(kind, str) else kind
        name = inner.pop("name", None) or getattr(kind, "__name__", str(inner["type"]))
        if isinstance(kind, type) and issubclass(kind, Tracker):
            kind.check_installed()
            guarded.append(dict(type=GuardedTracker, name=name, backend=dict(inner, run=run)))
        else:  # also a type that is not registered: building it says so
            guarded.append(dict(type=GuardedBackend, name=name, backend=inner))
    return guarded
