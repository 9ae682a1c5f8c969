"""The batch size of a training: learning rates that follow it, and the one that fits the memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from efftasks.apis.building import build
from efftasks.apis.free_memory import free_memory, peak_memory, restart_peak
from efftasks.engine.batch_fit import BatchFit, fit_batch
from efftasks.engine.dataloaders import build_dataloader
from efftasks.engine.optimizers import MuonAdamW
from efftasks.linking.declared import bare_name
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError

__all__ = ["fitting_batch", "set_batch_size"]

_OF_WORKERS = ("num_workers", "persistent_workers", "prefetch_factor", "timeout")
_BY_STEP = ("begin", "end", "T_max", "total_iters")


def set_batch_size(cfg: LinkedConfig, size: int, steps: int | None = None, keep_lr: bool = False) -> str:
    """Set the images of a batch in a config, and scale its learning rates.

    With SGD rates are proportional to the images of an update (arXiv 1706.02677). The updates of Adam and Muon do not
    grow with the gradient, and its noise falls with the square root of the batch: so do their rates (arXiv 2205.10287).
    Schedulers that count steps count the same number of images.

    Args:
        cfg: is changed.
        size: of a batch, in each process.
        steps: batches of an update (gradient accumulation); None leaves the config's.
        keep_lr: leave learning rates and schedulers as they are.

    Returns:
        What was changed, in a sentence.

    Raises:
        UserError: the size is no positive number, or the config has no batch size.
    """
    loader, wrapper = cfg.get("train_dataloader") or {}, cfg.get("optim_wrapper") or {}
    if not isinstance(size, int) or size < 1:
        raise UserError(f"--batch-size: got {size!r}, expected a number of images from 1, or auto")
    if not loader.get("batch_size") or "optimizer" not in wrapper:
        raise UserError("--batch-size: expected a config with train_dataloader.batch_size and one optimizer")
    old_steps = wrapper.get("accumulative_counts", 1)
    ratio = size * (steps or old_steps) / (loader["batch_size"] * old_steps)
    is_old = size == loader["batch_size"]
    sentence = f"batch size {size}" + (", as in the config" if is_old else f" instead of {loader['batch_size']}")
    loader["batch_size"] = size
    if steps is not None and steps != old_steps:
        wrapper["accumulative_counts"] = steps
        sentence += f", an update for each {steps} batches"
    if keep_lr or ratio == 1:
        return f"{sentence}; learning rates stay as they are"
    is_linear = bare_name(wrapper["optimizer"].get("type", "")) == "SGD"
    factor = ratio if is_linear else ratio**0.5
    for node, key in _rates(cfg):
        node[key] = float(f"{node[key] * factor:.6g}")
    for scheduler in cfg.get("param_scheduler") or []:
        if not scheduler.get("by_epoch", True):
            numbers = {key: scheduler[key] for key in _BY_STEP if isinstance(scheduler.get(key), int)}
            scheduler.update({key: max(1, round(number / ratio)) if number else 0 for key, number in numbers.items()})
    rule = "the ratio of images in an update" if is_linear else "its square root"
    return f"{sentence}; learning rates times {factor:.3g}, {rule} (--keep-lr leaves them)"


def _rates(cfg: Config) -> Iterator[tuple[Any, str]]:
    """The places of all learning rates: of the optimizer, of patterns of names, and the absolute ends of a decay."""
    optimizer = cfg.optim_wrapper["optimizer"]
    if bare_name(optimizer.get("type", "")) == "MuonAdamW":
        optimizer.setdefault("lr", MuonAdamW.LR)
        optimizer.setdefault("muon_lr", MuonAdamW.MUON_LR)
        yield optimizer, "muon_lr"
    if optimizer.get("lr") is not None:
        yield optimizer, "lr"
    for rule in ((cfg.optim_wrapper.get("paramwise_cfg") or {}).get("patterns") or {}).values():
        if rule.get("lr") is not None:
            yield rule, "lr"
    for scheduler in cfg.get("param_scheduler") or []:
        if scheduler.get("eta_min"):
            yield scheduler, "eta_min"


def fitting_batch(cfg: LinkedConfig) -> BatchFit:
    """Measure which batch size fits the memory, with some training steps of the model of a config.

    Raises:
        UserError: not even one image fits, or the memory cannot be measured on this system.
    """
    loader = {key: value for key, value in cfg.train_dataloader.items() if key not in _OF_WORKERS}
    device = get_device()
    free = free_memory(device)
    if free is None:
        raise UserError("--batch-size auto: free memory cannot be measured on this system; give a number")
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg).to(device).train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

        def step(size: int) -> float:
            data = build_dataloader({**loader, "batch_size": size, "num_workers": 0}, seed=0)
            batches = chain.from_iterable(repeat(data))  # an epoch may have only one
            seconds = 0.0
            try:
                for batch in islice(batches, 2):  # the second has the state of the optimizer
                    begin = time.perf_counter()
                    loss = model.train_step(batch, optim_wrapper=wrapper)
                    float(loss["loss"])  # waits for a GPU
                    seconds = time.perf_counter() - begin
            except torch.cuda.OutOfMemoryError as error:
                raise MemoryError from error
            return seconds

        images = len(build_dataloader({**loader, "batch_size": 1, "num_workers": 0}).sampler)  # type: ignore[arg-type]
        batch = cfg.train_dataloader.batch_size
        restart_peak(device)
        return fit_batch(step, lambda: peak_memory(device), batch, free, images, may_grow=device != "cpu")
