"""Random seeds that depend on seed, epoch and rank only, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset, worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["EpochSeed"]


@HOOKS.register_module()
class EpochSeed(Hook):
    """Seed python, numpy, torch and the data workers at the start of each training epoch.

    A resumed run then draws the same random numbers as an uninterrupted one, without a saved random state. The training
    loader must restart its workers in each epoch (``persistent_workers=False``). That also resets the state of the
    pipeline (the cached images of a mosaic); without workers this hook resets it.
    """

    runs_once: ClassVar[bool] = True
    priority = "LOW"  # after the hooks that switch the pipeline

    def __init__(self) -> None:
        self._initial: Any = None  # the pipeline in its initial state
        self._current: Any = None  # the copy of it that the data set uses

    def before_train_epoch(self, runner: Any) -> None:
        """Set the seeds of this epoch, and reset the pipeline if there are no workers.

        Raises:
            ValueError: the training loader has ``persistent_workers=True``.
        """
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            raise ValueError("train_dataloader.persistent_workers: got True, EpochSeed allows False only")
        if not loader.num_workers and isinstance(loader.dataset, BaseDataset):
            self._reset_pipeline(loader.dataset)
        rank = get_rank()
        seed = int(np.random.SeedSequence([runner.seed, runner.epoch, rank]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        loader.worker_init_fn = partial(
            worker_init_fn, num_workers=loader.num_workers, rank=rank, seed=seed % (2**31 - 10_000)
        )

    def _reset_pipeline(self, dataset: BaseDataset) -> None:
        if dataset.pipeline is not self._current:  # the first epoch, or another hook has switched it
            self._initial = dataset.pipeline
        dataset.pipeline = self._current = copy.deepcopy(self._initial)
