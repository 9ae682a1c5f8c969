"""Say which images could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook

from efftasks.registry import HOOKS

__all__ = ["ReportSkippedImages"]


@HOOKS.register_module()
class ReportSkippedImages(Hook):
    """Name each unreadable image once, when it is first skipped, and count the skips of each epoch.

    The data set notes what it skipped in ``skipped_files`` of the sample that stands in for it.
    """

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._count = 0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the skips of a batch."""
        self._note(runner, data_batch)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the skips of a batch."""
        self._note(runner, data_batch)

    def after_train_epoch(self, runner: Any) -> None:
        """Say the count."""
        self._tell(runner, f"epoch {runner.epoch + 1}", "skipped")

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Say the count."""
        self._tell(runner, f"validation after epoch {runner.epoch}", "scored as blank")

    def _note(self, runner: Any, data_batch: Any) -> None:
        samples: Sequence[Any] = (data_batch or {}).get("data_samples", ())
        for sample in samples:
            for path in sample.metainfo.get("skipped_files", ()):
                self._count += 1
                self._name(runner, path)

    def _name(self, runner: Any, path: str) -> None:
        if path not in self._named:
            self._named.add(path)
            # Formatted here: mmengine drops a warning whose template was used before.
            runner.logger.warning(f"{path}: the image is missing or cannot be decoded, skipped")

    def _tell(self, runner: Any, when: str, what: str) -> None:
        # Only the first process has a voice in the log, so it learns what the others met.
        everyone = all_gather_object((self._count, sorted(self._named)))
        self._count = 0
        for _, names in everyone:
            for path in names:
                self._name(runner, path)
        total = sum(count for count, _ in everyone)
        if total:
            runner.logger.warning(f"{when}: {total} unreadable images {what}")
