"""Set the training progress of the model."""

from __future__ import annotations

from typing import Any, ClassVar

from mmengine.hooks import Hook

from efftasks.engine.wrapped import bare_model
from efftasks.registry import HOOKS
from efftasks.structures.protocols import Progressive

__all__ = ["TrainingProgress"]


@HOOKS.register_module()
class TrainingProgress(Hook):
    """Call ``model.set_progress(fraction)`` at the start of each epoch: 0 in the first, 1 in the last."""

    runs_once: ClassVar[bool] = True

    def before_train_epoch(self, runner: Any) -> None:
        """Set the progress of this epoch, if the model has ``set_progress``."""
        model = bare_model(runner.model)
        if isinstance(model, Progressive):
            model.set_progress(runner.epoch / max(1, runner.max_epochs - 1))
