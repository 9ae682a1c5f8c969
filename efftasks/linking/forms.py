"""Checks of the types of a config's parts: which must be dicts, which lists, and which keys a data loader has."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch.utils.data import DataLoader

from efftasks.linking.data import LOADERS, leaves
from efftasks.linking.sizes import dotted
from efftasks.structures.errors import UserError

__all__ = ["check_forms"]

_DICTS = (
    *(
        "model",
        "optim_wrapper",
        "train_cfg",
        "val_cfg",
        "test_cfg",
        "default_hooks",
        "env_cfg",
        "randomness",
        "visualizer",
    ),
    *("log_processor", "keypoints", "schedule", "compression", *LOADERS),
)
_LISTS_OF_DICTS = ("custom_hooks", "vis_backends")
_DICTS_OR_LISTS = ("param_scheduler", "val_evaluator", "test_evaluator")
# Keys of a loader that mmengine handles itself; the others are arguments of torch's DataLoader.
_MMENGINE_LOADER_KEYS = {"dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn", "num_batch_per_epoch"}


def check_forms(cfg: Config) -> None:
    """Check that the parts of a config are dicts or lists where they must be.

    Raises:
        UserError: a part has another type; the message names its key.
    """
    for key in _DICTS:
        _expect(key, cfg.get(key), (dict,), "a dict")
    for key in _LISTS_OF_DICTS:
        _expect_dicts(key, cfg.get(key))
    for key in _DICTS_OR_LISTS:
        if not isinstance(cfg.get(key), dict):
            _expect_dicts(key, cfg.get(key))
    wrapper = cfg.get("optim_wrapper") or {}
    for key in ("optimizer", "clip_grad", "paramwise_cfg"):
        _expect(f"optim_wrapper.{key}", wrapper.get(key), (dict,), "a dict")
    seeds = {*inspect.signature(set_random_seed).parameters, "seed", "deterministic", "diff_rank_seed"}
    _expect_keys("randomness", cfg.get("randomness") or {}, seeds)
    allowed = {*inspect.signature(DataLoader.__init__).parameters, *_MMENGINE_LOADER_KEYS} - {"self"}
    for name in LOADERS:
        loader = cfg.get(name) or {}
        _expect_keys(name, loader, allowed)
        _expect(f"{name}.dataset", loader.get("dataset"), (dict,), "the dict of a data set")
        for place, dataset in leaves(loader["dataset"], (name, "dataset")) if loader.get("dataset") else ():
            _expect_dicts(dotted((*place, "pipeline")), dataset.get("pipeline"))


def _expect(key: str, value: Any, kinds: tuple[type, ...], expected: str) -> None:
    if value is not None and not isinstance(value, kinds):
        raise UserError(f"{key}: got {value!r}, expected {expected}")


def _expect_dicts(key: str, value: Any) -> None:
    _expect(key, value, (list, tuple), "a list of dicts")
    for i, part in enumerate(value or ()):
        if isinstance(part, (str, int, float, list, tuple)):  # a built object is allowed
            raise UserError(f"{key}.{i}: got {part!r}, expected a dict with a type")


def _expect_keys(key: str, value: dict[str, Any], allowed: Iterable[str]) -> None:
    for name in value:
        if name not in allowed:
            near = difflib.get_close_matches(name, sorted(allowed), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f", expected one of {', '.join(sorted(allowed))}"
            raise UserError(f"{key}.{name}: there is no such key{hint}")
