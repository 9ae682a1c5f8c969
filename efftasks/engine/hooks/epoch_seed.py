"""Randomness that depends on seed, epoch and process only, never on history."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["EpochSeed"]


@HOOKS.register_module()
class EpochSeed(Hook):
    """Seed python, numpy, torch and the data workers anew at the start of each training epoch.

    So a resumed run draws the very numbers which the uninterrupted one would have drawn, without saving any random
    state. The training loader must not keep its workers (``persistent_workers=False``): theirs would go on drawing.
    """

    def before_train_epoch(self, runner: Any) -> None:
        """Seed."""
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            raise ValueError("train_dataloader.persistent_workers: got True, EpochSeed allows False only")
        rank = get_rank()
        seed = int(np.random.SeedSequence([runner.seed, runner.epoch, rank]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        loader.worker_init_fn = partial(
            worker_init_fn, num_workers=loader.num_workers, rank=rank, seed=seed % (2**31 - 10_000)
        )
