"""End training when the validation has not improved for some epochs."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from mmengine.hooks import EarlyStoppingHook

from efftasks.engine.hooks.checkpoint import NO_OBJECTS_AP, SafeCheckpointHook
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["EarlyStopping"]

_KEY = "early_stopping"  # of the message hub: validations without improvement, and the best score
_LEAST = 1e-6  # a smaller gain is none


@HOOKS.register_module()
class EarlyStopping(EarlyStoppingHook):
    """mmengine's EarlyStoppingHook with a patience in epochs, on the metric that chooses ``best.pth``.

    A resumed training counts on. Scores that are NaN are no improvement.

    Args:
        patience: epochs without improvement, of validations: with one every fifth epoch, 8 are two validations.
        monitor: name of a metric, higher is better; None for ``save_best`` of the checkpoint hook.
    """

    runs_once: ClassVar[bool] = True
    monitor: str

    def __init__(self, patience: int = 10, monitor: str | None = None) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience: got {patience!r}, expected a number of epochs from 1")
        super().__init__(monitor or "", rule="greater", min_delta=_LEAST, check_finite=False)
        self.epochs = patience

    def before_train(self, runner: Any) -> None:
        """Take over the metric, the interval of validations, and the count of a resumed training.

        Raises:
            UserError: the training has no validation, or there is no metric to watch.
        """
        if runner.val_loop is None:
            raise UserError("--patience: the config has no validation (val_dataloader), expected one to stop by")
        if not self.monitor:
            best = [hook.save_best for hook in runner.hooks if isinstance(hook, SafeCheckpointHook) and hook.save_best]
            if not best:
                raise UserError("--patience: default_hooks.checkpoint.save_best is None, expected the metric to watch")
            self.monitor = best[0]
        interval = runner.train_loop.val_interval
        self.patience = max(1, -(-self.epochs // interval))
        waited = runner.message_hub.runtime_info.get(_KEY) if runner.epoch else None
        if waited:
            self.wait_count, self.best_score = int(waited[0]), float(waited[1])
        runner.logger.info(
            f"training ends early if {self.monitor} does not improve in {self.patience} validations "
            f"({self.patience * interval} epochs)"
        )

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Count, and end training."""
        if runner.train_loop.stop_training:
            return
        scores = dict(metrics or {})
        if self.monitor in scores and math.isnan(scores[self.monitor]):
            scores[self.monitor] = NO_OBJECTS_AP  # mmengine takes NaN for an improvement
        super().after_val_epoch(runner, scores)
        runner.message_hub.update_info(_KEY, [self.wait_count, float(self.best_score)])
