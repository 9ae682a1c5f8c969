"""What experiment trackers get beside scalars: the environment, and the best checkpoint at the end."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from efftasks.checkpoints.files import read_checkpoint
from efftasks.engine.hooks.checkpoint import BEST
from efftasks.engine.loggers.guard import GuardedTracker
from efftasks.structures.errors import UserError

__all__ = ["TrackRun"]

_LIBRARIES = ("efftasks", "torch", "onedl-mmengine", "mmengine", "onedl-mmdetection", "onedl-mmsegmentation", "numpy")


class TrackRun(Hook):
    """Give trackers the environment before the training, and ``best.pth`` after it.

    Args:
        trackers: of the runner.
    """

    priority = "LOWEST"

    def __init__(self, trackers: Sequence[GuardedTracker]) -> None:
        self._trackers = trackers

    def before_train(self, runner: Any) -> None:
        """Record the environment."""
        for tracker in self._trackers:
            tracker.add_environment(environment())

    def after_train(self, runner: Any) -> None:
        """Record the best checkpoint of this training."""
        file = Path(runner.work_dir, BEST)
        if not file.is_file():
            return
        try:
            meta = read_checkpoint(file)["meta"]
        except (UserError, KeyError) as error:
            runner.logger.warning(f"{file}: it cannot be read, so no logger gets it ({error})")
            return
        scores = {"epoch": meta.get("epoch"), **(meta.get("best") or {})}
        for tracker in self._trackers:
            tracker.add_checkpoint(file, scores)


def environment() -> dict[str, str]:
    """System, processors and versions, without the name of the machine."""
    result = {
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        result["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    for library in _LIBRARIES:
        try:
            result[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return result
