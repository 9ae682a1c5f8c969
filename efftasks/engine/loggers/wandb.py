"""Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.engine.loggers.config_values import portable
from efftasks.engine.loggers.run_ids import read_run_id, write_run_id
from efftasks.engine.loggers.tracker import Scalars, Tracker
from efftasks.registry import VIS_BACKENDS
from efftasks.structures.errors import first_line

__all__ = ["WandbTracker"]

INIT_SECONDS = 30


@VIS_BACKENDS.register_module()
class WandbTracker(Tracker):
    """A run of Weights & Biases; offline, in the work dir, without a login or a connection.

    mmengine's backend uploads all Python files of the current folder, and one axis is shared by training and
    validation, whose steps run backwards on it. Arguments: see :class:`~efftasks.engine.loggers.tracker.Tracker`.
    """

    flag = "wandb"
    package = "wandb"
    title = "Weights & Biases"

    @property
    def experiment(self) -> Any:
        """The ``wandb`` run."""
        self.open()
        return self._wandb_run

    def _init_env(self) -> None:
        import wandb

        self._wandb = wandb
        run_id = read_run_id(self._run.work_dir, self.flag) if self._run.resume else None
        settings: dict[str, Any] = dict(
            project=self._project,
            group=self._group,
            name=self.run_name,
            dir=str(self._run.work_dir),
            id=run_id or _new_id(),
            resume="allow",
        )
        self._wandb_run = self._start(settings)
        write_run_id(self._run.work_dir, self.flag, settings["id"])
        for mode, axis in (("train", "iter"), ("val", self._run.validation_axis), ("pictures", "epoch")):
            self._wandb_run.define_metric(f"{mode}/*", step_metric=axis)
        if self._wandb_run.offline:
            folder = Path(self._wandb_run.dir).parent
            self.info(f"the run is offline; `wandb sync {folder}` uploads it")
        else:
            self.info(f"the run is at {self._wandb_run.url}")

    def _start(self, settings: dict[str, Any]) -> Any:
        """The run, offline where it cannot be online."""
        wandb = self._wandb
        options = wandb.Settings(silent=True, init_timeout=INIT_SECONDS)
        # Without a mode wandb would ask for a key on a terminal.
        is_online = os.environ.get("WANDB_MODE", "online") in ("online", "shared")
        if not is_online:
            settings["id"] = _new_id()  # an offline session cannot continue a run
            return wandb.init(**settings, settings=options)
        if not wandb.login(prompt=False, verify=False):
            self.warn("not logged in (`wandb login`), so the run is kept offline")
            settings["id"] = _new_id()
            return wandb.init(**settings, mode="offline", settings=options)
        try:
            return wandb.init(**settings, settings=options)
        except wandb.Error as error:
            self.warn(f"no connection ({first_line(error)}), so the run is kept offline")
            settings["id"] = _new_id()  # the other is in use by the attempt
            return wandb.init(**settings, mode="offline", settings=options)

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config."""
        self.open()
        self._wandb_run.config.update(portable(config.to_dict()), allow_val_change=True)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image uint8 (H, W, 3) in RGB, of an epoch."""
        self.open()
        self._wandb_run.log({f"pictures/{name}": self._wandb.Image(image), "epoch": step})

    def _log(self, scalars: Scalars) -> None:
        # Without wandb's own step, which must not decrease: the axis is a value, see define_metric.
        self._wandb_run.log({**scalars.values, scalars.axis: scalars.step})

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Record what the training runs on."""
        self.open()
        self._wandb_run.config.update({"environment": dict(environment)}, allow_val_change=True)

    def add_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Upload the best checkpoint as an artifact of type ``model``."""
        artifact = self._wandb.Artifact(f"checkpoint-{self._wandb_run.id}", type="model", metadata=dict(metadata))
        artifact.add_file(str(path))
        self._wandb_run.log_artifact(artifact)

    def finish(self, is_complete: bool) -> None:
        """Close the run as finished or as failed."""
        self._wandb_run.finish(exit_code=0 if is_complete else 1)


def _new_id() -> str:
    return uuid.uuid4().hex[:8]
