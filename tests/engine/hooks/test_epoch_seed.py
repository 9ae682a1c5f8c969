"""The numbers of an epoch hang on the seed, the epoch and the process, and on nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch

from efftasks.engine.hooks import epoch_seed
from efftasks.engine.hooks.epoch_seed import EpochSeed


def drawn(seed: int, epoch: int) -> tuple[float, ...]:
    """What the main process draws from each generator, and then what a data worker does."""
    loader = SimpleNamespace(num_workers=2, persistent_workers=False, worker_init_fn=None, dataset=None)
    EpochSeed().before_train_epoch(SimpleNamespace(train_dataloader=loader, seed=seed, epoch=epoch))
    numbers = [random.random(), np.random.rand(), torch.rand(()).item()]
    assert loader.worker_init_fn is not None
    loader.worker_init_fn(1)
    return (*numbers, random.random(), np.random.rand(), torch.rand(()).item())


def test_each_epoch_and_seed_has_its_own_numbers_and_always_the_same() -> None:
    first = drawn(0, 0)
    random.seed(5)
    assert drawn(0, 0) == first
    for other in (drawn(0, 1), drawn(0, 2), drawn(1, 0)):
        assert all(a != b for a, b in zip(first, other))


def test_each_process_has_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(0, 3)
    monkeypatch.setattr(epoch_seed, "get_rank", lambda: 1)
    assert all(a != b for a, b in zip(first, drawn(0, 3)))


def test_workers_that_stay_are_refused() -> None:
    loader = SimpleNamespace(num_workers=2, persistent_workers=True)
    with pytest.raises(ValueError, match="persistent_workers: got True, EpochSeed allows False only"):
        EpochSeed().before_train_epoch(SimpleNamespace(train_dataloader=loader, seed=0, epoch=0))
