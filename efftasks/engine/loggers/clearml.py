"""ClearML."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from mmengine.config import Config

from efftasks.engine.loggers.config_values import flat, portable
from efftasks.engine.loggers.run_ids import read_run_id, write_run_id
from efftasks.engine.loggers.tracker import Scalars, Tracker
from efftasks.registry import VIS_BACKENDS

__all__ = ["ClearmlTracker"]

_SECONDS = 10  # ClearML itself tries to connect without end
# What ClearML would replace by code of its own, and the search for the source repository, for which the end of a
# training waits up to five minutes.
_UNUSED = (
    *("catboost", "detect_repository", "fastai", "gradio", "hydra", "joblib", "lightgbm", "matplotlib", "megengine"),
    *("pytorch", "scikit", "tensorboard", "tensorflow", "tfdefines", "xgboost"),
)
_PORTS = {"http": 80, "https": 443}


@VIS_BACKENDS.register_module()
class ClearmlTracker(Tracker):
    """A task of ClearML; an offline session in the work dir without a configuration or a connection.

    mmengine's backend lets ClearML take over the arguments of the command, every saved checkpoint and the output.
    Arguments: see :class:`~efftasks.engine.loggers.tracker.Tracker`.
    """

    flag = "clearml"
    package = "clearml"
    title = "ClearML"

    @property
    def experiment(self) -> Any:
        """The ``clearml.Task``."""
        self.open()
        return self._task

    def _init_env(self) -> None:
        from clearml import Task

        reason = None if Task.is_offline() else _why_offline()
        if reason:
            self.warn(f"{reason}, so the run is kept offline")
            Task.set_offline(True)
        last = read_run_id(self._run.work_dir, self.flag) if self._run.resume else None
        is_continued = last is not None and not Task.is_offline()
        self._task = Task.init(
            project_name=self._project,
            task_name=self.run_name,
            tags=[self._group] if self._group else None,
            reuse_last_task_id=False,
            continue_last_task=last if is_continued else False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict.fromkeys(_UNUSED, False),
            auto_connect_streams=False,
            auto_resource_monitoring=torch.cuda.is_available(),
        )
        if is_continued:
            self._task.set_initial_iteration(0)  # steps are counted from the beginning of the training
        self._log_to = self._task.get_logger()
        write_run_id(self._run.work_dir, self.flag, self._task.id)
        if not Task.is_offline():
            self.info(f"the run is at {self._task.get_output_log_web_page()}")

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config as parameters, and as the configuration object ``config``."""
        self.open()
        values = portable(config.to_dict())
        self._task.set_parameters({f"config/{name}": value for name, value in flat(values)})
        self._task.set_configuration_object("config", config_text=Config(values).pretty_text)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image uint8 (H, W, 3) in RGB, of an epoch."""
        self.open()
        self._log_to.report_image("pictures", name, iteration=step, image=image)

    def _log(self, scalars: Scalars) -> None:
        for name, value in scalars.values.items():
            title, _, series = name.rpartition("/")
            self._log_to.report_scalar(title, series, value, scalars.step)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Record what the training runs on, as parameters."""
        self.open()
        self._task.update_parameters({f"environment/{key}": value for key, value in environment.items()})

    def add_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Upload the best checkpoint as an artifact."""
        self._task.upload_artifact(path.stem, artifact_object=str(path), metadata=dict(metadata), wait_on_upload=True)

    def finish(self, is_complete: bool) -> None:
        """Close the run as finished or as failed; an offline session is a zip file in the work dir."""
        from clearml import Task

        if not is_complete and not Task.is_offline():
            self._task.mark_failed(status_reason="the training was interrupted")
        self._task.close()
        if Task.is_offline():
            session = Path(f"{self._task.get_offline_mode_folder()}.zip")
            target = self._run.work_dir / f"clearml_{session.name}"
            shutil.move(session, target)
            self.info(f"`clearml-task --import-offline-session {target}` uploads the run")


def _why_offline() -> str | None:
    """Why ClearML cannot be reached; None if it can."""
    from clearml.backend_api.session import Session
    from clearml.backend_api.session.defs import ENV_ACCESS_KEY, ENV_AUTH_TOKEN
    from clearml.config import config_obj

    if not (ENV_ACCESS_KEY.get() or ENV_AUTH_TOKEN.get() or config_obj.get("api.credentials.access_key", None)):
        return "not configured (`clearml-init`)"
    address = urlsplit(Session.get_api_server_host())
    try:
        socket.create_connection((address.hostname or "", address.port or _PORTS[address.scheme]), _SECONDS).close()
    except OSError as error:
        return f"no connection to {address.hostname} ({error})"
    return None
