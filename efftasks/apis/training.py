"""Training of a config."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.config import Config

from efftasks.apis.batch_size import fitting_batch, set_batch_size
from efftasks.apis.building import build
from efftasks.apis.latency import exported_latency
from efftasks.apis.precheck import precheck, precheck_together
from efftasks.apis.time_limit import TimeLimit
from efftasks.apis.validation_pictures import ValidationPictures
from efftasks.apis.zoo import resolve_names
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.config import check_complete, linked_config, pixel_range
from efftasks.engine.runner import EffRunner
from efftasks.engine.wrapped import bare_model
from efftasks.linking.linked import LinkedConfig
from efftasks.linking.pipelines import check_pipelines
from efftasks.linking.schedule import schedule_warnings
from efftasks.linking.values import check_to_train
from efftasks.models.detectors import Detector
from efftasks.models.pose_estimators import PoseEstimator
from efftasks.models.segmentors import Segmentor
from efftasks.registry import RUNNERS
from efftasks.structures.errors import UserError

__all__ = ["build_runner", "check_divisor", "train"]


def train(
    cfg: str | Path | Config,
    amp: bool | str = False,
    resume: str | None = None,
    launcher: str = "none",
    threads: int | None = None,
    check: bool = True,
    batch_size: int | str | None = None,
    keep_lr: bool = False,
    limit: TimeLimit | None = None,
) -> Any:
    """Train a config in its ``work_dir``.

    Args:
        cfg: a linked config of :func:`load_config`; another, or the path or name of one, is linked first.
        amp: mixed precision. ``auto`` or True takes float16 with loss scaling on CUDA, and on a CPU bfloat16 if it is
            faster than float32. ``bfloat16`` and (on CUDA) ``float16`` force it.
        resume: a checkpoint, or ``auto`` for the newest intact one of the work dir, without which training starts from
            ``load_from``; None starts a new training.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        threads: of PyTorch on a CPU; None takes all cores, and fewer while other programs use them.
        check: check the data before the first step, see :func:`efftasks.apis.precheck.precheck`.
        batch_size: images of a batch, or ``auto`` for what fits the memory; learning rates are scaled, see
            :func:`efftasks.apis.batch_size.set_batch_size`. None for the config's.
        keep_lr: do not scale them.
        limit: a time in which training is to end; None for the config's number of epochs.

    Returns:
        The runner, after training.

    Raises:
        UserError: the config lacks a part that training needs, the input size does not fit the model, the data have
            errors, or the device does not support the precision.
    """
    cfg = LinkedConfig.of(copy.deepcopy(linked_config(cfg)))  # what this run adds is not the caller's
    if cfg.get("compression"):
        raise UserError("compression: the config lists compression steps; run it with efftasks.apis.compress")
    check_to_train(cfg)
    check_complete(cfg)
    cfg.launcher = launcher
    if amp:
        cfg.merge_from_dict(_amp_options("auto" if amp is True else amp))
    cfg.setdefault("default_hooks", {}).pop("threads", None)  # of an earlier run, in a dumped config
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {}).setdefault("dist_cfg", {}).update(backend="gloo")
        if threads is not None:
            torch.set_num_threads(threads)
        elif launcher == "none":
            cfg.merge_from_dict({"default_hooks.threads": dict(type="FairThreadsHook")})
    warnings = _resume(cfg, resume)
    resolve_names(cfg)
    _check_before_decisions(cfg)
    # Transforms read the data while the runner is built; with a launcher the processes are not connected before.
    is_auto = batch_size == "auto"
    checked_first = check and launcher == "none" and (bool(cfg.get("model_transforms")) or is_auto)
    if checked_first:
        warnings += precheck(cfg, ("train", "val"))
    budget = None if limit is None else limit.prepare(cfg)
    decisions = [] if batch_size is None else [_batch(cfg, batch_size, keep_lr)]
    runner = build_runner(cfg)
    if budget is not None:
        runner.register_hook(budget(cfg))
    check_divisor(cfg, bare_model(runner.model))
    if check and not checked_first:
        precheck_together(cfg, ("train", "val"), runner.logger)
    for sentence in (*warnings, *schedule_warnings(cfg), *(finding.message for finding in check_pipelines(cfg))):
        runner.logger.warning(sentence)
    runner.register_hook(ValidationPictures(pixel_range(cfg)))
    for sentence in decisions:
        runner.logger.info(sentence)
    runner.train()
    return runner


def _batch(cfg: LinkedConfig, size: int | str, keep_lr: bool) -> str:
    """Set the batch size of a config, and say what was changed."""
    if size != "auto":
        return set_batch_size(cfg, int(size), keep_lr=keep_lr)
    if cfg.launcher != "none":
        raise UserError("--batch-size auto: it measures in one process, expected a number with --launcher")
    fit = fitting_batch(cfg)
    return f"{set_batch_size(cfg, fit.size, fit.steps, keep_lr)}; {fit.reason}"


def build_runner(cfg: Config) -> Any:
    """The runner of a linked config; its transforms may time exported models."""
    kind = RUNNERS.get(cfg.get("runner_type", "EffRunner"))
    if cfg.get("model_transforms") and cfg.get("image_size") and issubclass(kind, EffRunner):
        return kind.from_cfg(cfg, latency=exported_latency(tuple(cfg.image_size)))
    return kind.from_cfg(cfg)


def _resume(cfg: LinkedConfig, resume: str | None) -> list[str]:
    """Set what to resume from; ``load_from`` stays where there is nothing. Returns warnings."""
    if resume is None:
        return []
    if resume == "auto" and cfg.get("load_from") and newest_intact_checkpoint(cfg.work_dir)[0] is None:
        return [f"nothing to resume in {cfg.work_dir}, training starts from load_from={cfg.load_from}"]
    cfg.resume = True
    cfg.load_from = None if resume == "auto" else resume
    return []


def _check_before_decisions(cfg: LinkedConfig) -> None:
    """Check the dense model where transforms decide, by running it, while the runner is built."""
    if cfg.get("model_transforms") and cfg.get("image_size"):
        dense = LinkedConfig.of(copy.deepcopy(cfg))
        dense.model_transforms = []
        check_divisor(cfg, build(dense))


def check_divisor(cfg: Config, model: Any) -> None:
    """Check that a model can take images of ``image_size``.

    Raises:
        UserError: a side is no multiple of its divisor.
    """
    if not isinstance(model, (Detector, PoseEstimator, Segmentor)) or cfg.get("image_size") is None:
        return
    height, width = cfg.image_size
    if height % model.divisor or width % model.divisor:
        raise UserError(
            f"image_size: got {height} x {width}, expected multiples of {model.divisor}, the backbone's divisor"
        )


def _amp_options(precision: str) -> dict[str, Any]:
    """The options of a config for mixed precision."""
    on_gpu = torch.cuda.is_available()
    allowed = ("auto", "bfloat16", *(("float16",) if on_gpu else ()))
    if precision not in allowed:
        raise UserError(f"--amp: got {precision!r}, allowed on a {'GPU' if on_gpu else 'CPU'} are {', '.join(allowed)}")
    if not on_gpu:
        hook = dict(type="ChoosePrecision", mode=precision)
        return {"optim_wrapper.type": "CpuAmpOptimWrapper", "default_hooks.precision": hook}
    dtype = "float16" if precision == "auto" else precision
    scale = {"optim_wrapper.loss_scale": "dynamic"} if dtype == "float16" else {}
    return {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": dtype, **scale}
