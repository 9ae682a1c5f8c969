"""What all experiment trackers have in common: which run, which axis a value belongs to, and a missing package."""

from __future__ import annotations

import importlib.util
import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import BaseVisBackend

from efftasks.structures.errors import UserError

__all__ = ["Scalars", "TrackedRun", "Tracker"]


@dataclass(frozen=True)
class TrackedRun:
    """The training that is tracked.

    Attributes:
        work_dir: its folder, whose name is the run's.
        resume: continue the run that the folder has the id of.
        validation_axis: what validations are counted by, "epoch" or "iter".
    """

    work_dir: Path
    resume: bool
    validation_axis: str


class Scalars(NamedTuple):
    """Values with names such as ``train/loss``, at a step on an axis, "iter" or "epoch"."""

    values: dict[str, float]
    axis: str
    step: int


class Tracker(BaseVisBackend):
    """An experiment tracker as a visualizer backend of mmengine.

    The first call opens the run. Calls raise what the package of the tracker raises; the runner puts a
    :class:`~efftasks.engine.loggers.guard.GuardedTracker` around.

    Training is counted in iterations and validation in epochs, so that their values have names of their own: ``train/``
    and ``val/``.

    Args:
        save_dir: unused; files go to the work dir.
        project: name of the project.
        group: of runs that belong together, the steps of a compression; it begins their names.
        run: the training; the runner fills it.

    Attributes:
        flag: name on the command line, and of the extra.
        package: what to import.
        title: how messages name it.
    """

    flag: ClassVar[str]
    package: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self,
        save_dir: str | None = None,
        project: str = "efftasks",
        group: str | None = None,
        run: TrackedRun | None = None,
    ) -> None:
        super().__init__(save_dir or "")
        self._env_initialized: bool = False
        if run is None:
            raise ValueError(f"{type(self).__name__}: it has no run, expected to be built by EffRunner")
        self._project, self._group, self._run = project, group, run

    @classmethod
    def check_installed(cls) -> None:
        """Check that the package is there, without importing it.

        Raises:
            UserError: it is not.
        """
        if importlib.util.find_spec(cls.package) is None:
            raise UserError(
                f"--logger {cls.flag}: the package {cls.package} is not installed; install it with: pip install "
                f"'efftasks[{cls.flag}]'"
            )

    @property
    def run_name(self) -> str:
        """The name of the work dir, after that of the group."""
        name = self._run.work_dir.resolve().name
        return f"{self._group}/{name}" if self._group else name

    def open(self) -> None:
        """Open the run if it is not open."""
        if not self._env_initialized:
            self._init_env()
            self._env_initialized = True

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Record a value of training."""
        self.add_scalars({name: value, "iter": step}, step)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record the values of a step of training, which have ``iter`` among them, or of a validation.

        Args:
            scalar_dict: name -> value; what is no number is left out.
            step: iteration or epoch.
            file_path: unused.
        """
        self.open()
        mode, axis = ("train", "iter") if "iter" in scalar_dict else ("val", self._run.validation_axis)
        values = {f"{mode}/{key}": number_of(x) for key, x in scalar_dict.items() if key not in ("iter", "step")}
        self._log(Scalars({key: x for key, x in values.items() if x is not None}, axis, step))

    def info(self, message: str) -> None:
        """Log where the run is."""
        print_log(f"{self.title}: {message}", logger="current", level=logging.INFO)

    def warn(self, message: str) -> None:
        """Log a warning."""
        print_log(f"{self.title}: {message}", logger="current", level=logging.WARNING)

    @abstractmethod
    def _log(self, scalars: Scalars) -> None:
        """Record values."""

    @abstractmethod
    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Record what the training runs on."""

    @abstractmethod
    def add_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Record the best checkpoint as the artifact of the run."""

    @abstractmethod
    def finish(self, is_complete: bool) -> None:
        """Close the run, as finished or as failed."""


def number_of(value: Any) -> float | None:
    """A number, a tensor or an array of one element as a float; None for anything else."""
    if isinstance(value, (str, bytes, Mapping)) or value is None:
        return None
    array = np.asarray(value)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "biuf" else None
