"""Randomness that depends on seed, epoch and process only, never on history."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["EpochSeed"]


@HOOKS.register_module()
class EpochSeed(Hook):
    """Seed python, numpy, torch and the data workers anew at the start of each training epoch.

    So a resumed run draws the very numbers which the uninterrupted one would have drawn, without saving any random
    state. The training loader must not keep its workers (``persistent_workers=False``): theirs would go on drawing.
    Workers also start with a pipeline that remembers nothing (mosaic keeps images); without workers, the data set gets
    such a pipeline here.
    """

    priority = "LOW"  # after the hooks that switch the pipeline

    def __init__(self) -> None:
        self._unused: Any = None  # the pipeline as the config has it
        self._given: Any = None  # the copy of it that the data set uses

    def before_train_epoch(self, runner: Any) -> None:
        """Seed."""
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            raise ValueError("train_dataloader.persistent_workers: got True, EpochSeed allows False only")
        if not loader.num_workers and isinstance(loader.dataset, BaseDataset):
            self._renew_pipeline(loader.dataset)
        rank = get_rank()
        seed = int(np.random.SeedSequence([runner.seed, runner.epoch, rank]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        loader.worker_init_fn = partial(
            worker_init_fn, num_workers=loader.num_workers, rank=rank, seed=seed % (2**31 - 10_000)
        )

    def _renew_pipeline(self, dataset: BaseDataset) -> None:
        if dataset.pipeline is not self._given:  # the first epoch, or it was switched
            self._unused = dataset.pipeline
        dataset.pipeline = self._given = copy.deepcopy(self._unused)
