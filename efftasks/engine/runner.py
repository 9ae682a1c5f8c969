"""mmengine's Runner with checkpoints that survive a crash, are read as data, and resume exactly."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_distributed
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.files import compare, load_matching, read_checkpoint, weights_of
from efftasks.engine.hooks.sync_buffers import SyncBuffers
from efftasks.engine.memory import keep_freed_memory
from efftasks.engine.resuming import ScheduleOfConfig, check_same_groups
from efftasks.engine.threads import free_workers
from efftasks.engine.wrapped import bare_model
from efftasks.registry import RUNNERS
from efftasks.structures.errors import UserError

__all__ = ["EffRunner", "flush_denormals", "newest_intact_checkpoint"]

_NEEDED_TO_RESUME = ("meta", "state_dict", "message_hub", "optimizer")


def newest_intact_checkpoint(folder: str | Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume from: the newest in a work dir that can be read; and the broken ones passed over."""
    folder = Path(folder)
    broken: list[Path] = []
    files = [path for path in folder.glob("*.pth") if path.stem.startswith(("epoch_", "iter_"))]
    for path in sorted(files, key=_step, reverse=True):
        if _is_intact(path):
            return path, broken
        broken.append(path)
    return None, broken


def _is_intact(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except UserError:
        return False
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None  # torch writes checksums and does not look at them


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
    """Runner; see the module. On a CPU it also flushes denormals, and keeps freed memory for the next step.

    Convolutions are kept channels-last where that is safe.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._has_loaded: bool = False
        if get_device() == "cpu":
            flush_denormals()
            keep_freed_memory()
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
        if self.distributed:
            self.register_hook(SyncBuffers())
        if get_device() != "cpu" or not _crashes_channels_last(self.model):
            self.model.to(memory_format=torch.channels_last)
        log = Path(self.log_dir, f"{self.timestamp}.log")
        self.logger.info(f"work dir {self.work_dir}; the resolved config and the environment are in {log}")
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

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader; one that would drop all it has, a batch that is not full, keeps it, with a warning.

        Where ``num_workers`` is None it has as many as there are cores for, see :func:`free_workers`.
        """
        if isinstance(dataloader, dict) and dataloader.get("num_workers", 0) is None:
            workers = free_workers(get_world_size())
            is_kept = bool(dataloader.get("persistent_workers")) and workers > 0
            dataloader = {**dataloader, "num_workers": workers, "persistent_workers": is_kept}
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        samples = _samples_of_a_process(loader)
        if not isinstance(dataloader, dict) or samples is None or not 0 < samples < (loader.batch_size or 0):
            return loader
        if not loader.drop_last:
            return loader
        MMLogger.get_current_instance().warning(
            f"dataloader: the data set has {samples} samples{' a process' * (get_world_size() > 1)}, fewer than a "
            f"batch of {loader.batch_size}: every step takes all {samples}"
        )
        return Runner.build_dataloader({**dataloader, "drop_last": False}, seed, diff_rank_seed)

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

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume; where the config's schedule, rates or steps an epoch are others than the checkpoint's, they count.

        Where nothing differs, the run is the uninterrupted one to the last bit.
        """
        schedulers = self.param_schedulers or []
        if not isinstance(schedulers, list):  # several optimizers
            super().resume(filename, *args, **kwargs)
            return
        schedule = ScheduleOfConfig(self.optim_wrapper, schedulers)
        super().resume(filename, *args, **kwargs)
        changes = schedule.changes()
        steps = len(self.train_dataloader)
        by_epoch = isinstance(self.train_loop, EpochBasedTrainLoop)
        if by_epoch and self.epoch and self.iter != self.epoch * steps:
            changes.append(f"steps an epoch {self.iter / self.epoch:g} -> {steps}")
            self.train_loop._iter = self.epoch * steps
        if changes:
            done = dict(epochs=self.epoch) if by_epoch else dict(epochs=0, steps=self.iter)
            schedule.restore(steps_per_epoch=steps, **done)
            self.logger.warning(
                f"resumed at epoch {self.epoch} with another schedule, that of the config: {'; '.join(changes)}"
            )
        if by_epoch and self.epoch >= self.max_epochs:
            self.logger.warning(
                f"nothing to do: {self.epoch} epochs are done; give --epochs M with M above {self.epoch}"
            )

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list = [],  # noqa: B006  (mmengine's signature)
    ) -> dict[str, Any]:
        """Load weights.

        To resume, everything must match. To start from (``load_from``), every tensor of the file must have its place,
        and those with another number of rows are left out and named: prediction layers for another number of classes.
        Whole parts that the file knows nothing of start anew, and are named: masks of a head that was a detector's.
        Another width of the network also changes other dimensions, and is refused.

        Raises:
            UserError: the file cannot be read safely, is of another architecture, or lacks what resuming needs.
        """
        checkpoint = read_checkpoint(filename, map_location if isinstance(map_location, (str, torch.device)) else "cpu")
        if self._resume:
            _check_resumable(checkpoint, filename)
            if isinstance(self.optim_wrapper, OptimWrapper):
                check_same_groups(self.optim_wrapper, checkpoint["optimizer"], filename)
            checkpoint["meta"].pop("config", None)  # mmengine would run it as Python
        weights = checkpoint["state_dict"] if self._resume else weights_of(checkpoint, filename)
        model = bare_model(self.model)
        report = compare(model, weights)
        starts = not (self._resume or strict)
        tolerated = starts and _differ_in_rows_only(model, weights)
        new = starts and _are_of_new_parts(report.missing, weights)
        if (report.missing and not new) or report.unexpected or (report.mismatched and not tolerated):
            raise UserError(f"{filename} is of another architecture than the config's model: {report.summary()}")
        # Complete and of the right shapes, whatever was left out: hooks (the average) load it as well.
        own = dict(model.state_dict())
        checkpoint["state_dict"] = {**own, **{key: weights[key] for key in report.matched}}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_matching(model, checkpoint["state_dict"], name=filename)
        level = logging.WARNING if report.mismatched or report.missing else logging.INFO
        self.logger.log(level, f"{filename}: {report.summary()}")
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint whole or not at all: beside its place first, then moved there.

        Raises:
            WorkError: it could not be written; what was there before is untouched.
        """
        if self.rank == 0:
            with whole_or_nothing(Path(out_dir, filename)) as draft:
                super().save_checkpoint(out_dir, draft.name, *args, **kwargs)


def _samples_of_a_process(loader: DataLoader) -> int | None:
    """How many samples a process takes of a data set in an epoch; None where the sampler has no end."""
    endless = isinstance(loader.sampler, InfiniteSampler)
    return None if endless or not isinstance(loader.sampler, Sized) else len(loader.sampler)


def _crashes_channels_last(model: torch.nn.Module) -> bool:
    """Whether it has a layer whose gradient ends the process on a CPU in the channels-last format.

    Seen with PyTorch 2.13 (oneDNN) for 1x1 convolutions with a stride and fewer channels than a vector register holds:
    ``Conv2d(8, 24, 1, stride=2)`` on (8, 8, 80, 80) writes past its buffer in the backward pass.
    """
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    return any(conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.in_channels < 16 for conv in convolutions)


def _check_resumable(checkpoint: Mapping[str, Any], name: str) -> None:
    absent = [part for part in _NEEDED_TO_RESUME if not isinstance(checkpoint.get(part), Mapping)]
    absent += [f"meta.{key}" for key in ("epoch", "iter") if "meta" not in absent and key not in checkpoint["meta"]]
    if absent:
        raise UserError(
            f"{name}: training cannot be resumed from it, it has no {', '.join(absent)}; expected an epoch_N.pth of a "
            "work dir (to start anew from its weights, set load_from)"
        )


def _differ_in_rows_only(module: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    own = module.state_dict()
    return all(own[key].shape[1:] == weights[key].shape[1:] for key in own if key in weights)


def _are_of_new_parts(missing: Sequence[str], weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether missing tensors belong to whole parts, inside of what the model consists of, that the weights lack.

    A backbone, neck or head that is missing as a whole is no new part: nothing of the file would say so.
    """
    known = {name.rsplit(".", depth)[0] for name in weights for depth in range(1, name.count(".") + 1)}

    def is_new(name: str) -> bool:
        parts = name.split(".")
        absent = [n for n in range(1, len(parts)) if ".".join(parts[:n]) not in known]
        return bool(absent) and min(absent) >= 2

    return all(is_new(name) for name in missing)
