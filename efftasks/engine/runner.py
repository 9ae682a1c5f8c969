"""mmengine's Runner with checkpoints that survive a crash, are read as data, and resume exactly."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner

from efftasks.registry import RUNNERS
from efftasks.structures.checkpoint import load_matching, read_checkpoint
from efftasks.structures.errors import UserError, WorkError

__all__ = ["EffRunner", "flush_denormals", "newest_intact_checkpoint"]

POINTER = "last_checkpoint"


def newest_intact_checkpoint(folder: str | Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume from: the newest in a work dir that can be read; and the broken ones passed over."""
    folder = Path(folder)
    broken = []
    files = [path for path in folder.glob("*.pth") if path.stem.startswith(("epoch_", "iter_"))]
    for path in sorted(files, key=_step, reverse=True):
        try:
            read_checkpoint(path)
        except UserError:
            broken.append(path)
            continue
        return path, broken
    return None, broken


def _step(path: Path) -> int:
    number = path.stem.rsplit("_", 1)[1]
    return int(number) if number.isdigit() else -1


def flush_denormals() -> None:
    """Let the CPU treat denormal numbers as zero: in training they slow a step down by up to twenty times.

    Adam's second moments and vanishing gradients become denormal within the first hundred steps. The setting belongs
    to a thread and is inherited by the threads it starts, so this must come before torch starts its workers.
    """
    np.finfo(np.float32), np.finfo(np.float64)
    torch.set_flush_denormal(True)


@RUNNERS.register_module()
class EffRunner(Runner):
    """Runner; see the module. On a CPU it also flushes denormals, and it keeps convolutions channels-last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._has_loaded: bool = False
        if get_device() == "cpu":
            flush_denormals()
        super().__init__(*args, **kwargs)

    def set_randomness(self, *args: Any, **kwargs: Any) -> None:
        """Seed, and choose deterministic algorithms if asked to, as mmengine does.

        Deterministic mode also fills every fresh tensor before it is written, to show reads of unwritten memory. That
        debugging aid costs a pass over memory in every operation and changes no result.
        """
        super().set_randomness(*args, **kwargs)
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False

    def train(self) -> torch.nn.Module:
        """Train."""
        self.model.to(memory_format=torch.channels_last)
        return super().train()

    def setup_env(self, env_cfg: dict) -> None:
        """Set up processes; mmengine's own way asks for CUDA even where gloo is to join CPU processes."""
        if self._launcher == "pytorch" and get_device() == "cpu" and not is_distributed():
            torch.distributed.init_process_group("gloo")
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap for several processes; on a CPU without the device ids that mmengine would give."""
        if self.distributed and model_wrapper_cfg is None and get_device() == "cpu":
            unused = self.cfg.get("find_unused_parameters", False)
            return MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)
        return super().wrap_model(model_wrapper_cfg, model)

    def load_or_resume(self) -> None:
        """Load weights, or resume; ``resume=True`` without a file takes the newest intact checkpoint."""
        if self._has_loaded or not (self._resume and self._load_from is None):
            super().load_or_resume()
            return
        path, broken = newest_intact_checkpoint(self.work_dir)
        for file in broken:
            self.logger.warning(f"{file} cannot be read (truncated?), going back to the one before")
        if path is None:
            self.logger.warning(f"nothing to resume in {self.work_dir}, training starts from the beginning")
            return
        self.resume(str(path))
        self._has_loaded = True
        self.logger.info("resumed from %s", path)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list = [],  # noqa: B006  (mmengine's signature)
    ) -> dict[str, Any]:
        """Load weights.

        To resume, everything must match. To start from (``load_from``), tensors of another shape are left out and
        named: a head for another number of classes.
        """
        checkpoint = read_checkpoint(filename, map_location if isinstance(map_location, (str, torch.device)) else "cpu")
        if "state_dict" not in checkpoint:
            checkpoint = {"state_dict": checkpoint.get("model", checkpoint), "meta": {}}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        report = load_matching(model, checkpoint["state_dict"], strict=False, name=filename)
        if report.missing or report.unexpected or (report.mismatched and (self._resume or strict)):
            raise UserError(f"{filename} is of another architecture than the config's model: {report.summary()}")
        level = logging.WARNING if report.mismatched else logging.INFO
        self.logger.log(level, f"{filename}: {report.summary()}")
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint whole or not at all: beside its place first, then moved there.

        Raises:
            WorkError: it could not be written; what was there before is untouched.
        """
        target, draft = Path(out_dir, filename), Path(out_dir, filename + ".tmp")
        try:
            super().save_checkpoint(out_dir, draft.name, *args, **kwargs)
            if self.rank == 0:
                with draft.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(draft, target)
        except (OSError, RuntimeError) as error:
            # torch's zip writer turns a full disk into a RuntimeError.
            draft.unlink(missing_ok=True)
            raise WorkError(
                f"{target}: the checkpoint could not be saved ({error}); earlier ones are intact"
            ) from error
