"""Report images that could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["ReportSkippedImages"]


@HOOKS.register_module()
class ReportSkippedImages(Hook):
    """Log a warning for each unreadable image, once, and the number of unreadable images of each epoch.

    The data set lists the files that it skipped as ``skipped_files`` of the sample that replaces them.
    """

    runs_once: ClassVar[bool] = True

    def __init__(self) -> None:
        self._reported: set[str] = set()
        self._count = 0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count and report the skipped images of a batch."""
        self._count_skipped(runner, data_batch)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count and report the skipped images of a batch."""
        self._count_skipped(runner, data_batch)

    def after_train_epoch(self, runner: Any) -> None:
        """Log the number of skipped images of the epoch."""
        self._log_count(runner, f"epoch {runner.epoch + 1}", "skipped")

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Log the number of unreadable images of the validation, which are scored as blank images."""
        self._log_count(runner, f"validation after epoch {runner.epoch}", "scored as blank")

    def _count_skipped(self, runner: Any, data_batch: Any) -> None:
        samples: Sequence[Any] = (data_batch or {}).get("data_samples", ())
        for sample in samples:
            for path in sample.metainfo.get("skipped_files", ()):
                self._count += 1
                self._report(runner, path)

    def _report(self, runner: Any, path: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            # Formatted here: mmengine drops a warning whose template was used before.
            runner.logger.warning(f"{path}: the image is missing or cannot be decoded, skipped")

    def _log_count(self, runner: Any, stage: str, outcome: str) -> None:
        # Only the main process writes to the log, so it also reports the images of the others.
        gathered = all_gather_object((self._count, sorted(self._reported)))
        self._count = 0
        for _, paths in gathered:
            for path in paths:
                self._report(runner, path)
        total = sum(count for count, _ in gathered)
        if total:
            runner.logger.warning(f"{stage}: {total} unreadable images {outcome}")
