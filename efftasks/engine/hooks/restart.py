"""Start the last epochs from the best checkpoint.

Source: D-FINE (arXiv 2410.13842) and DEIM, whose last epochs, without augmentation, start from the best checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmengine.hooks import EMAHook, Hook

from efftasks.checkpoints.files import load_matching, read_state_dict
from efftasks.engine.wrapped import bare_model
from efftasks.registry import HOOKS

__all__ = ["RestartFromBest"]


@HOOKS.register_module()
class RestartFromBest(Hook):
    """Load the best checkpoint of the work dir into the model and its EMA when an epoch begins.

    The optimizer keeps its state.

    Args:
        epoch: the epoch, counted from 0. In a config also a share of training or a point of ``schedule``.
        file: name of the checkpoint in the work dir.
    """

    priority = "NORMAL"
    runs_once: ClassVar[bool] = True
    linked_epochs: ClassVar[tuple[str, ...]] = ("epoch",)

    def __init__(self, epoch: int, file: str = "best.pth") -> None:
        self.epoch, self.file = epoch, file

    def before_train_epoch(self, runner: Any) -> None:
        """Load the checkpoint if this is the epoch and the file exists."""
        path = Path(runner.work_dir, self.file)
        if runner.epoch != self.epoch or not path.is_file():
            return
        weights = read_state_dict(path)
        model = bare_model(runner.model)
        load_matching(model, weights, name=str(path))
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                load_matching(hook.ema_model.module, weights, name=str(path))
        runner.logger.info(f"epoch {runner.epoch + 1} begins from {path}")
