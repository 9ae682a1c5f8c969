"""Backends of the visualizer that let training go on when they fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import BaseVisBackend

from efftasks.engine.loggers.tracker import Tracker, number_of
from efftasks.engine.loggers.worker import Worker
from efftasks.registry import VIS_BACKENDS
from efftasks.structures.errors import first_line

__all__ = ["GuardedBackend", "GuardedTracker"]

OPEN_SECONDS = 90.0
CLOSE_SECONDS = 120.0


class GuardedBackend(BaseVisBackend):
    """A backend whose first failure is a warning, after which it is not called again.

    Args:
        save_dir: folder for the files of the backend.
        backend: its config.
    """

    def __init__(self, save_dir: str, backend: dict[str, Any]) -> None:
        super().__init__(save_dir)
        self._backend: Any = VIS_BACKENDS.build({"save_dir": save_dir, **backend})
        self._is_active = True

    def _init_env(self) -> None:
        """Nothing: the backend opens itself when it is first called."""

    @property
    def experiment(self) -> Any:
        """That of the backend."""
        return self._backend.experiment

    @property
    def title(self) -> str:
        """How messages name the backend."""
        return type(self._backend).__name__

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config."""
        self._call("add_config", config, **kwargs)

    def add_graph(self, model: Any, data_batch: Any, **kwargs: Any) -> None:
        """Record the model."""
        self._call("add_graph", model, data_batch, **kwargs)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image uint8 (H, W, 3) in RGB."""
        self._call("add_image", name, image, step, **kwargs)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Record a value."""
        self._call("add_scalar", name, value, step, **kwargs)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record values."""
        self._call("add_scalars", scalar_dict, step, file_path, **kwargs)

    def close(self) -> None:
        """Close the backend."""
        self._call("close")

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if not self._is_active:
            return
        try:
            getattr(self._backend, method)(*args, **kwargs)
        except Exception as error:
            self._fail(error)

    def _fail(self, reason: str | BaseException) -> None:
        self._is_active = False
        if isinstance(reason, Exception):
            reason = f"{type(reason).__name__}: {first_line(reason)}"
        print_log(
            f"{self.title} failed ({reason}); training goes on, and nothing more is logged there",
            logger="current",
            level=logging.WARNING,
        )


class GuardedTracker(GuardedBackend):
    """A :class:`~efftasks.engine.loggers.tracker.Tracker`, called in a thread, since it may wait for a network.

    Training waits for the first call and for the last one alone.

    Args:
        save_dir: folder for the files of the backend.
        backend: the config of the tracker.
        open_seconds: how long the first call may take.
        close_seconds: how long the last call, and those before it, may take.
    """

    _backend: Tracker

    def __init__(
        self,
        save_dir: str,
        backend: dict[str, Any],
        open_seconds: float = OPEN_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        super().__init__(save_dir, backend)
        self._open_seconds, self._close_seconds = open_seconds, close_seconds
        self._worker: Worker | None = None
        self._config: Any = None

    @property
    def title(self) -> str:
        """How messages name the tracker."""
        return self._backend.title

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config, when the run opens: the runner calls this before it knows that it can train."""
        self._config = config

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Record a value as it is now."""
        super().add_scalar(name, number_of(value), step, **kwargs)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record values as they are now."""
        super().add_scalars({name: number_of(x) for name, x in scalar_dict.items()}, step, file_path, **kwargs)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Record what the training runs on."""
        self._call("add_environment", dict(environment))

    def add_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Record the best checkpoint."""
        self._call("add_checkpoint", path, dict(metadata))

    def close(self) -> None:
        """Close the run as finished."""
        self._finish(is_complete=True)

    def abort(self) -> None:
        """Close the run as failed; nothing if it is closed."""
        self._finish(is_complete=False)

    def _finish(self, is_complete: bool) -> None:
        if self._worker is not None and self._is_active:
            self._worker.submit(lambda: self._backend.finish(is_complete), self._close_seconds)
            self._is_active = False

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if not self._is_active:
            return
        if self._worker is None:
            self._worker = Worker(f"tracker {self.title}", self._fail)
            self._worker.submit(self._backend.open, self._open_seconds)
            if self._config is not None:
                self._call("add_config", self._config)
        task = getattr(self._backend, method)
        self._worker.submit(lambda: task(*args, **kwargs))
