"""Leave cores to other programs while training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from efftasks.engine.threads import FairThreads
from efftasks.registry import HOOKS

__all__ = ["FairThreadsHook"]


@HOOKS.register_module()
class FairThreadsHook(Hook):
    """Set the number of PyTorch's threads by the load of the machine, see :mod:`efftasks.engine.threads`.

    Sums over another number of threads differ in the last bit: with a fixed number (``--threads``) a run is repeatable
    to the last bit beside any load.
    """

    def __init__(self) -> None:
        self._threads: FairThreads | None = None

    def before_train(self, runner: Any) -> None:
        """Begin to watch."""
        self._threads = FairThreads(runner.logger.info)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look."""
        self._look()

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look."""
        self._look()

    def _look(self) -> None:
        if self._threads is not None:
            self._threads.look()
