"""mmengine's Runner with atomic checkpoints, which are read without running code and resume exactly."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.class_rows import CarriedClasses, ClassCarry
from efftasks.checkpoints.files import dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.checkpoints.loading import check_resumable, fitting_weights
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.compression.plan import KEY as PLAN_KEY
from efftasks.compression.plan import CompressionPlan
from efftasks.compression.transform import DecideContext
from efftasks.engine.batches import training_losses
from efftasks.engine.cpu import crashes_channels_last, flush_denormals, keep_freed_memory
from efftasks.engine.dataloaders import build_dataloader
from efftasks.engine.hooks.sync_buffers import SyncBuffers
from efftasks.engine.hooks.time_budget import TimeBudget
from efftasks.engine.hooks.tracking import TrackRun
from efftasks.engine.hooks.validate_resumed import ValidateResumed
from efftasks.engine.hooks.validate_widths import ValidateWidths
from efftasks.engine.loggers.building import guarded_backends
from efftasks.engine.loggers.guard import GuardedTracker
from efftasks.engine.loggers.tracker import TrackedRun
from efftasks.engine.resuming import ScheduleOfConfig, check_same_groups
from efftasks.engine.starting import StartingModel, check_rows_known, starting_model
from efftasks.engine.wrapped import bare_model, networks_of
from efftasks.registry import RUNNERS
from efftasks.structures.features import EXIT_MODULE
from efftasks.structures.protocols import Elastic

__all__ = ["EffRunner"]


@RUNNERS.register_module()
class EffRunner(Runner):
    """mmengine's Runner with atomic checkpoints, which are read without running code and resume exactly.

    On a CPU it also flushes denormals and keeps freed memory. Models are in the channels-last format where that is
    safe.
    """

    _has_loaded: bool  # set by mmengine, without a type
    latency: Callable[[torch.nn.Module, str], float] | None = None  # see DecideContext

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._start: StartingModel | None = None  # None if the Runner got a built model
        self._trackers: list[GuardedTracker] = []  # in the main process
        self._resume = kwargs.get("resume", False)  # mmengine sets it after the visualizer is built
        if get_device() == "cpu":
            flush_denormals()
            keep_freed_memory()
        # mmengine keeps loggers and scores by name and second: those of two trainings in one second would be the same.
        cfg, name = kwargs.get("cfg"), kwargs.get("experiment_name")
        name = name or Path(getattr(cfg, "filename", None) or "run").stem
        kwargs["experiment_name"] = f"{name}_{uuid.uuid4().hex[:8]}"
        super().__init__(*args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Any, latency: Callable[[torch.nn.Module, str], float] | None = None) -> EffRunner:
        """The runner of a config.

        Args:
            cfg: the config.
            latency: measures an exported model for the transforms of the config, see
                :class:`~efftasks.compression.transform.DecideContext`; None refuses those that need it.
        """
        if latency is None:
            return super().from_cfg(cfg)
        # mmengine passes values of the config alone to the constructor, which builds the model.
        kind: Any = type(cls.__name__, (cls,), dict(latency=staticmethod(latency), __module__=cls.__module__))
        return kind.from_cfg(cfg)

    def set_randomness(self, *args: Any, **kwargs: Any) -> None:
        """Set seeds and, if configured, deterministic algorithms, as mmengine does.

        PyTorch's deterministic mode also fills uninitialized memory, to reveal reads of it. That is switched off: it is
        a pass over memory in every operation and changes no result.
        """
        super().set_randomness(*args, **kwargs)
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False

    def train(self) -> torch.nn.Module:
        """Convert the model to channels-last where that is safe, and train."""
        if self.distributed:
            self.register_hook(SyncBuffers())
        if self._resume:
            self.register_hook(ValidateResumed())
        if isinstance(bare_model(self.model), Elastic) and self._val_loop is not None:
            self.register_hook(ValidateWidths())
        if get_device() != "cpu" or not any(map(crashes_channels_last, networks_of(self.model))):
            self.model.to(memory_format=torch.channels_last)
        log = Path(self.log_dir, f"{self.timestamp}.log")
        self.logger.info(f"work dir {self.work_dir}; the resolved config and the environment are in {log}")
        if self._trackers:
            self.register_hook(TrackRun(self._trackers))
        try:
            return super().train()
        except BaseException:
            for tracker in self._trackers:
                tracker.abort()
            raise

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the visualizer; a backend of a config that fails is a warning, see :class:`GuardedBackend`.

        Raises:
            UserError: the package of an experiment tracker is not installed.
        """
        if not isinstance(visualizer, dict) or not visualizer.get("vis_backends"):
            return super().build_visualizer(visualizer)
        axis = "epoch" if self.log_processor.by_epoch else "iter"
        backends = guarded_backends(visualizer["vis_backends"], TrackedRun(Path(self.work_dir), self._resume, axis))
        names = [backend["name"] for backend in backends]  # mmengine removes them
        built = super().build_visualizer(dict(visualizer, vis_backends=backends))
        if self.rank == 0:
            guards = [built.get_backend(name) for name in names]
            self._trackers = [guard for guard in guards if isinstance(guard, GuardedTracker)]
        return built

    def build_model(self, model: torch.nn.Module | dict) -> torch.nn.Module:
        """Build the model, compressed by the plan of the checkpoint or the ``model_transforms`` of the config.

        ``compression_plan`` is saved in every checkpoint.

        Raises:
            UserError: see :func:`efftasks.engine.starting.starting_model`.
        """
        if not isinstance(model, dict):
            return super().build_model(model)
        file = self._load_from
        if self._resume and file is None:
            file = self._newest[0]
        transforms = self.cfg.get("model_transforms") or ()
        classes = ClassCarry.of_config(self.cfg)
        self._start = starting_model(model, transforms, file, self._resume, self._context(), classes)
        if self._start.plan is not None:
            steps = ", ".join(step.type for step in self._start.plan.steps)
            self.logger.info(f"compressed by {steps}, as {'the config' if self._start.decided else file} says")
        return self._start.model

    def _context(self) -> DecideContext:
        """What transforms decide from."""
        size = self.cfg.get("image_size")
        data = self._train_dataloader
        return DecideContext(
            image_size=None if size is None else tuple(size),
            batches=training_losses(data, self.build_dataloader, self.seed) if isinstance(data, dict) else None,
            latency=self.latency,
        )

    @cached_property
    def _newest(self) -> tuple[Path | None, list[Path]]:
        """See :func:`newest_intact_checkpoint`: it reads files, and building and resuming both ask."""
        return newest_intact_checkpoint(self.work_dir)

    @property
    def compression_plan(self) -> CompressionPlan | None:
        """How the dense model of the config was compressed; None for a dense model."""
        return None if self._start is None else self._start.plan

    def setup_env(self, env_cfg: dict) -> None:
        """Set up distributed training, with gloo on CPUs, where mmengine needs CUDA."""
        if self._launcher == "pytorch" and get_device() == "cpu" and not is_distributed():
            torch.distributed.init_process_group("gloo")
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap the model for distributed training; on CPUs without device ids, which mmengine would set."""
        if self.distributed and model_wrapper_cfg is None and get_device() == "cpu":
            unused = self.cfg.get("find_unused_parameters", False)
            return MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a data loader, see :func:`efftasks.engine.dataloaders.build_dataloader`."""
        return build_dataloader(dataloader, seed, diff_rank_seed)

    def load_or_resume(self) -> None:
        """Load weights, or resume; ``resume=True`` without a file takes the newest intact checkpoint."""
        if self._has_loaded or not (self._resume and self._load_from is None):
            super().load_or_resume()
            return
        path, broken = self._newest
        for file in broken:
            self.logger.warning(f"{file} cannot be read (truncated?), going back to the one before")
        if path is None:
            self.logger.warning(f"nothing to resume in {self.work_dir}, training starts from the beginning")
            return
        self.resume(str(path))
        self._has_loaded = True
        self.logger.info("resumed from %s", path)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint, with the schedule, learning rates and steps per epoch of the config.

        If these are those of the checkpoint, the results are equal to an uninterrupted run to the last bit.
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
        if by_epoch and self.epoch >= self.max_epochs and not any(isinstance(hook, TimeBudget) for hook in self.hooks):
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
        """Load weights, see :func:`efftasks.checkpoints.loading.fitting_weights`.

        Raises:
            UserError: the file cannot be read safely, is of another architecture, or lacks what resuming needs.
        """
        checkpoint = read_checkpoint(filename, map_location if isinstance(map_location, (str, torch.device)) else "cpu")
        if self._resume:
            check_resumable(checkpoint, filename)
            if isinstance(self.optim_wrapper, OptimWrapper):
                check_same_groups(self.optim_wrapper, checkpoint["optimizer"], filename)
            checkpoint["meta"].pop("config", None)  # mmengine would execute it as Python
        model = bare_model(self.model)
        # A complete state dict with the shapes of the model, since hooks (EMA) load it as well.
        if self._start is not None and self._start.fitted is not None and filename == self._load_from:
            checkpoint["state_dict"], report, carried = self._start.fitted
        else:
            carried = self._with_classes(model, checkpoint, filename)
            checkpoint["state_dict"], report = fitting_weights(
                model, carried.weights, filename, not (self._resume or strict)
            )
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_matching(model, checkpoint["state_dict"], name=filename)
        level = logging.WARNING if report.mismatched or report.missing else logging.INFO
        is_new = any(name.startswith(f"{EXIT_MODULE}.") for name in report.missing)
        note = "; the early exit is new, and starts untrained" if is_new else ""
        self.logger.log(level, f"{filename}: {report.summary()}{note}")
        for sentence in carried.infos:
            self.logger.info(sentence)
        for sentence in carried.warnings:
            self.logger.warning(sentence)
        self._has_loaded = True
        return checkpoint

    def _with_classes(self, model: torch.nn.Module, checkpoint: dict[str, Any], file: str) -> CarriedClasses:
        """The weights of a checkpoint, to start with rows of the config's classes, to resume as they are."""
        carry, trained_on = ClassCarry.of_config(self.cfg), dataset_meta_of(checkpoint, file)
        if self._resume:
            carry.check_same(trained_on, file)
            return CarriedClasses(checkpoint["state_dict"])
        if self.compression_plan is not None:
            check_rows_known(self.compression_plan, trained_on, carry, file)
        return carry.apply(model, weights_of(checkpoint, file), trained_on, file)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, with the compression plan, atomically: write it beside its target, then rename it.

        Raises:
            WorkError: it could not be written; an old file of that name is unchanged.
        """
        if self.compression_plan is not None:
            kwargs["meta"] = {**(kwargs.get("meta") or {}), PLAN_KEY: self.compression_plan.as_data()}
        if self.rank == 0:
            with whole_or_nothing(Path(out_dir, filename)) as draft:
                super().save_checkpoint(out_dir, draft.name, *args, **kwargs)
