"""Saving checkpoints so that one is always intact: what is new is in place before what is old goes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.files import read_checkpoint
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["SafeCheckpointHook"]

BEST = "best.pth"
NOTHING_TO_SCORE = -1.0  # COCO's average precision where there are no objects


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs, and the best by a metric as ``best.pth``.

    Unlike mmengine's hook it deletes an old checkpoint only after the new one is in place, and writes the pointer
    ``last_checkpoint`` last. The best score survives a resume. A score of -1, COCO's for "nothing to score", or of
    NaN is no best one; where there is no other, ``best.pth`` is not written, and a warning says so.

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
        self._has_warned = False

    def before_train(self, runner: Any) -> None:
        """After a resume, take up the score of ``best.pth``.

        ``epoch_N.pth`` is saved before epoch N is scored, so it does not know that score: without this, the next worse
        score would overwrite the best.
        """
        file = Path(runner.work_dir, BEST)
        if self.save_best is None or runner.epoch == 0 or not file.is_file():
            return
        try:
            known = read_checkpoint(file)["meta"].get("best", {})
        except (UserError, KeyError) as error:
            runner.logger.warning(f"{file}: its score cannot be read, so the next best overwrites it ({error})")
            return
        if known.get("metric") == self.save_best:
            runner.message_hub.update_info("best_score", float(known["score"]))

    def after_train_epoch(self, runner: Any) -> None:
        """Save, point to it, then delete what is too old."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        step = runner.epoch + 1
        self._save(runner, f"epoch_{step}.pth", dict(epoch=step, iter=runner.iter), whole=True)
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        with whole_or_nothing(folder / "last_checkpoint") as draft:
            draft.write_text(str(folder / f"epoch_{step}.pth"))
        steps = sorted(int(p.stem[6:]) for p in folder.glob("epoch_*.pth") if p.stem[6:].isdigit())
        for old in [s for s in steps if s <= step][: -self.max_keep_ckpts]:
            (folder / f"epoch_{old}.pth").unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave out the histories of scalars, which are in the log and no plain data, and make numpy's numbers plain.

        So the file loads with ``torch.load(weights_only=True)`` as it is.
        """
        info = checkpoint["message_hub"]["runtime_info"]
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": plain, "resumed_keys": {}}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Save the best so far, over the one before."""
        if self.save_best is None or not metrics:
            return
        if self.save_best not in metrics:
            raise ValueError(f"save_best: got {self.save_best!r}, the metrics are {', '.join(metrics)}")
        score = float(metrics[self.save_best])
        if math.isnan(score) or score == NOTHING_TO_SCORE:
            self._warn(runner, score)
            return
        if not score > runner.message_hub.runtime_info.get("best_score", -math.inf):
            return
        runner.message_hub.update_info("best_score", score)
        # The loop has counted this epoch already.
        best = dict(metric=self.save_best, score=score)
        self._save(runner, BEST, dict(epoch=runner.epoch, iter=runner.iter, best=best), whole=False)
        runner.logger.info("best so far: %s %.4f at epoch %d, saved to %s", self.save_best, score, runner.epoch, BEST)

    def _warn(self, runner: Any, score: float) -> None:
        if self._has_warned or "best_score" in runner.message_hub.runtime_info:
            return
        self._has_warned = True
        older = "; the one in the work dir is of an earlier run" if Path(runner.work_dir, BEST).is_file() else ""
        runner.logger.warning(
            f"{self.save_best} is {score:.4f}: there was nothing to score, so {BEST} is not written{older}; "
            f"use the last epoch_N.pth of {runner.work_dir}"
        )

    def _save(self, runner: Any, name: str, meta: dict[str, Any], whole: bool) -> None:
        runner.save_checkpoint(
            runner.work_dir, name, save_optimizer=whole, save_param_scheduler=whole, meta=meta, by_epoch=True
        )
