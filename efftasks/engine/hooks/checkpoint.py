"""Saving checkpoints so that an intact one always exists: old ones are deleted after new ones are in place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.files import read_checkpoint
from efftasks.engine.loggers.config_values import portable
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["NO_OBJECTS_AP", "SafeCheckpointHook"]

BEST = "best.pth"
NO_OBJECTS_AP = -1.0  # COCO's average precision for data without objects


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs, and the best by a metric as ``best.pth``.

    Unlike mmengine's hook it deletes an old checkpoint only after the new one is in place, and writes the pointer
    ``last_checkpoint`` last. The best score survives a resume. Scores of -1 (COCO's for data without objects) and NaN
    are ignored; if there are no others, ``best.pth`` is not written, and a warning says so.

    Args:
        interval: epochs between checkpoints; the last epoch is always saved.
        max_keep_ckpts: number of ``epoch_N.pth`` that are kept.
        save_best: name of a metric, higher is better; None saves no best checkpoint.
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
        self._config: str | None = None  # as it is saved

    def before_train(self, runner: Any) -> None:
        """After a resume, restore the best score from ``best.pth``.

        ``epoch_N.pth`` is saved before epoch N is evaluated, so it lacks that score: without it a worse checkpoint
        could overwrite the best. A ``best.pth`` of no later epoch than ``scores_after`` of the message hub is of
        another model: its score is not restored.
        """
        file = Path(runner.work_dir, BEST)
        if self.save_best is None or runner.epoch == 0 or not file.is_file():
            return
        try:
            meta = read_checkpoint(file)["meta"]
            best, epoch = meta.get("best", {}), meta.get("epoch", runner.epoch)
        except (UserError, KeyError) as error:
            runner.logger.warning(f"{file}: its score cannot be read, so the next best overwrites it ({error})")
            return
        if epoch <= runner.message_hub.runtime_info.get("scores_after", 0):
            runner.message_hub.pop_info("best_score", None)
        elif best.get("metric") == self.save_best:
            runner.message_hub.update_info("best_score", float(best["score"]))

    def after_train_epoch(self, runner: Any) -> None:
        """Save ``epoch_N.pth``, write its path to ``last_checkpoint``, then delete old checkpoints."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        epoch = runner.epoch + 1
        self._save(runner, f"epoch_{epoch}.pth", dict(epoch=epoch, iter=runner.iter), with_optimizer=True)
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        with whole_or_nothing(folder / "last_checkpoint") as draft:
            draft.write_text(str(folder / f"epoch_{epoch}.pth"))
        saved = sorted(int(p.stem[6:]) for p in folder.glob("epoch_*.pth") if p.stem[6:].isdigit())
        for old in [number for number in saved if number <= epoch][: -self.max_keep_ckpts]:
            (folder / f"epoch_{old}.pth").unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Remove the histories of scalars, which the log has, and convert numpy scalars to Python numbers.

        The file can then be read with ``torch.load(weights_only=True)``. Its config is without secrets and machine
        paths, since the file is given to others, and loggers upload it; the work dir has the complete one.
        """
        if self._config is None:
            self._config = Config(portable(runner.cfg.to_dict())).pretty_text
        checkpoint["meta"]["cfg"] = self._config
        info = checkpoint["message_hub"]["runtime_info"]
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
        if "cfg" in plain:
            plain["cfg"] = self._config
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": plain, "resumed_keys": {}}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Save ``best.pth`` if the score is the best so far."""
        if self.save_best is None or not metrics:
            return
        if self.save_best not in metrics:
            raise ValueError(f"save_best: got {self.save_best!r}, the metrics are {', '.join(metrics)}")
        score = float(metrics[self.save_best])
        if math.isnan(score) or score == NO_OBJECTS_AP:
            self._warn(runner, score)
            return
        if not score > runner.message_hub.runtime_info.get("best_score", -math.inf):
            return
        runner.message_hub.update_info("best_score", score)
        # runner.epoch already counts this epoch.
        best = dict(metric=self.save_best, score=score)
        self._save(runner, BEST, dict(epoch=runner.epoch, iter=runner.iter, best=best), with_optimizer=False)
        runner.logger.info("best so far: %s %.4f at epoch %d, saved to %s", self.save_best, score, runner.epoch, BEST)

    def _warn(self, runner: Any, score: float) -> None:
        if self._has_warned or "best_score" in runner.message_hub.runtime_info:
            return
        self._has_warned = True
        existing = "; the one in the work dir is of an earlier run" if Path(runner.work_dir, BEST).is_file() else ""
        runner.logger.warning(
            f"{self.save_best} is {score:.4f}: there was nothing to score, so {BEST} is not written{existing}; "
            f"use the last epoch_N.pth of {runner.work_dir}"
        )

    def _save(self, runner: Any, name: str, meta: dict[str, Any], with_optimizer: bool) -> None:
        runner.save_checkpoint(
            runner.work_dir,
            name,
            save_optimizer=with_optimizer,
            save_param_scheduler=with_optimizer,
            meta=meta,
            by_epoch=True,
        )
