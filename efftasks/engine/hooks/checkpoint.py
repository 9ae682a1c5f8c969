"""Saving checkpoints so that one is always intact: what is new is in place before what is old goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["SafeCheckpointHook"]


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs, and the best by a metric as ``best.pth``.

    Unlike mmengine's hook it deletes an old checkpoint only after the new one is in place, and writes the pointer
    ``last_checkpoint`` last. The best score survives a resume.

    Args:
        interval: epochs between checkpoints; the last epoch is always saved.
        max_keep_ckpts: how many ``epoch_N.pth`` stay.
        save_best: metric, higher is better; None saves no best one.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 1, max_keep_ckpts: int = 2, save_best: str | None = None) -> None:
        if interval < 1 or max_keep_ckpts < 1:
            raise ValueError(
                f"interval and max_keep_ckpts: got {interval} and {max_keep_ckpts}, allowed are 1 and more"
            )
        self.interval = interval
        self.max_keep_ckpts = max_keep_ckpts
        self.save_best = save_best

    def after_train_epoch(self, runner: Any) -> None:
        """Save, point to it, then delete what is too old."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        step = runner.epoch + 1
        self._save(runner, f"epoch_{step}.pth", dict(epoch=step, iter=runner.iter), whole=True)
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        draft = folder / "last_checkpoint.tmp"
        draft.write_text(str(folder / f"epoch_{step}.pth"))
        os.replace(draft, folder / "last_checkpoint")
        steps = sorted(int(p.stem[6:]) for p in folder.glob("epoch_*.pth") if p.stem[6:].isdigit())
        for old in [s for s in steps if s <= step][: -self.max_keep_ckpts]:
            (folder / f"epoch_{old}.pth").unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave out the histories of scalars: they are in the log, and no plain data."""
        checkpoint["message_hub"] = {**checkpoint["message_hub"], "log_scalars": {}}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Save the best so far, over the one before."""
        if self.save_best is None or not metrics:
            return
        if self.save_best not in metrics:
            raise ValueError(f"save_best: got {self.save_best!r}, the metrics are {', '.join(metrics)}")
        score = metrics[self.save_best]
        best = runner.message_hub.runtime_info.get("best_score")
        if best is not None and score <= best:
            return
        runner.message_hub.update_info("best_score", score)
        # The loop has counted this epoch already.
        self._save(runner, "best.pth", dict(epoch=runner.epoch, iter=runner.iter), whole=False)
        runner.logger.info("best so far: %s %.4f at epoch %d, saved to best.pth", self.save_best, score, runner.epoch)

    def _save(self, runner: Any, name: str, meta: dict[str, Any], whole: bool) -> None:
        runner.save_checkpoint(
            runner.work_dir, name, save_optimizer=whole, save_param_scheduler=whole, meta=meta, by_epoch=True
        )
