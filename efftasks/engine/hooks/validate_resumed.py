"""Validate the checkpoint from which training resumes, where an interruption may have prevented it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

__all__ = ["ValidateResumed"]


class ValidateResumed(Hook):
    """Validate before the first epoch if the last one of the checkpoint should have been validated.

    ``epoch_N.pth`` is saved before epoch N is validated. A training that is interrupted between the two would otherwise
    never score this epoch, which may be the best. A repeated validation changes nothing.
    """

    priority = "LOWEST"  # after the best score is restored

    def before_train(self, runner: Any) -> None:
        """Run the validation that is due."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop) or runner.val_loop is None or loop.epoch < max(1, loop.val_begin):
            return
        if loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs:
            runner.val_loop.run()
