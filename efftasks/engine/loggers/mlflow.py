"""MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from efftasks.engine.loggers.config_values import flat, portable
from efftasks.engine.loggers.run_ids import read_run_id, write_run_id
from efftasks.engine.loggers.tracker import Scalars, Tracker
from efftasks.registry import VIS_BACKENDS

__all__ = ["MlflowTracker"]

STORE = "mlflow.db"
_SERVER = "MLFLOW_TRACKING_URI"
# MLflow repeats a request seven times, and waits two minutes for each answer.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_BATCH = 100  # parameters in a request
_LONGEST = 6000  # characters of a parameter
_NOT_ALLOWED = re.compile(r"[^\w./\- ]")


@VIS_BACKENDS.register_module()
class MlflowTracker(Tracker):
    """A run of MLflow, on the server of ``MLFLOW_TRACKING_URI``, or in ``mlflow.db`` of the work dir.

    mmengine's backend writes a folder of files, which MLflow no longer takes, and fails where a name or value is not
    allowed. Arguments: see :class:`~efftasks.engine.loggers.tracker.Tracker`.
    """

    flag = "mlflow"
    package = "mlflow"
    title = "MLflow"

    @property
    def experiment(self) -> Any:
        """The ``MlflowClient``."""
        self.open()
        return self._client

    def _init_env(self) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        folder = self._run.work_dir.resolve()
        store = f"sqlite:///{folder / STORE}"
        address = os.environ.get(_SERVER) or store
        self._client = MlflowClient(tracking_uri=address)
        self._id = self._resumed() or self._new(None if address != store else (folder / "mlartifacts").as_uri())
        write_run_id(self._run.work_dir, self.flag, self._id)
        if address == store:
            self.info(f"`mlflow ui --backend-store-uri {store}` shows the run")
        else:
            self.info(f"run {self._id} on the server of {_SERVER}")

    def _resumed(self) -> str | None:
        """The run of the work dir, open again."""
        from mlflow.exceptions import MlflowException

        run_id = read_run_id(self._run.work_dir, self.flag) if self._run.resume else None
        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.warn(f"run {run_id} of the work dir does not exist any more, so a new one begins")
            return None
        return run_id

    def _new(self, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(self._project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._project, artifacts)
        tags = {"group": self._group} if self._group else {}
        run_id: str = self._client.create_run(number, run_name=self.run_name, tags=tags).info.run_id
        return run_id

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config as parameters, and as the artifact ``config.py``."""
        self.open()
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        values = portable(config.to_dict())
        pairs = ((_NOT_ALLOWED.sub("_", name), value[:_LONGEST]) for name, value in flat(values))
        try:
            while batch := [Param(*pair) for pair in islice(pairs, _BATCH)]:
                self._client.log_batch(self._id, params=batch)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or not self._run.resume:
                raise
            self.warn("parameters cannot be changed: those of the first config stay; config.py has the new one")
        self._client.log_text(self._id, Config(values).pretty_text, "config.py")

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image uint8 (H, W, 3) in RGB, of an epoch."""
        self.open()
        self._client.log_image(self._id, image, key=name, step=step)

    def _log(self, scalars: Scalars) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_NOT_ALLOWED.sub("_", name), x, now, scalars.step) for name, x in scalars.values.items()]
        self._client.log_batch(self._id, metrics=values)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Record what the training runs on, as tags."""
        self.open()
        from mlflow.entities import RunTag

        self._client.log_batch(self._id, tags=[RunTag(f"environment.{key}", x) for key, x in environment.items()])

    def add_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Upload the best checkpoint to the folder ``checkpoint``."""
        self._client.log_artifact(self._id, str(path), "checkpoint")
        for key, value in metadata.items():
            self._client.set_tag(self._id, f"best.{key}", value)

    def finish(self, is_complete: bool) -> None:
        """Close the run as finished or as failed."""
        self._client.set_terminated(self._id, "FINISHED" if is_complete else "FAILED")
