"""Leave cores to other programs while training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from efftasks.engine.threads import FairThreads
from efftasks.registry import HOOKS

__all__ = ["FairThreadsHook"]


@HOOKS.register_module()
class FairThreadsHook(Hook):
    """Adapt the number of PyTorch's threads to the load of the machine, see :mod:`efftasks.engine.threads`.

    Sums differ in their last bits with the number of threads: runs are bitwise reproducible only with a fixed number
    (``--threads``), or without other load.
    """

    def __init__(self) -> None:
        self._threads: FairThreads | None = None

    def before_train(self, runner: Any) -> None:
        """Start to observe the load."""
        self._threads = FairThreads(runner.logger.info)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Adapt the number of threads."""
        self._adapt()

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Adapt the number of threads."""
        self._adapt()

    def _adapt(self) -> None:
        if self._threads is not None:
            self._threads.look()
