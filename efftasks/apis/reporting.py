"""The report of an evaluation on the test data of a config."""

from __future__ import annotations

from pathlib import Path

from efftasks.apis.evaluating import Evaluation
from efftasks.bench.environment import describe_environment
from efftasks.config import pixel_range
from efftasks.linking.linked import LinkedConfig
from efftasks.reports.evaluation_report import write_evaluation_report
from efftasks.reports.parts import ReportSettings

__all__ = ["write_report"]


def write_report(
    cfg: LinkedConfig, result: Evaluation, folder: str | Path, score_thr: float | None = None, iou_thr: float = 0.5
) -> Path:
    """Write the report of an evaluation with a record.

    Args:
        cfg: of the evaluation.
        result: from :func:`efftasks.apis.evaluate` with ``record=True``.
        folder: for ``index.html``, ``report.json``, CSV files and the record.
        score_thr: score from which a detection counts in confusion and pictures; None for that of the highest F1.
        iou_thr: IoU or OKS from which a detection is right.

    Returns:
        The path of the page.
    """
    assert result.record is not None
    palette = [(b, g, r) for r, g, b in result.palette]
    settings = ReportSettings(score_thr, iou_thr, pixel_range(cfg), palette)
    return write_evaluation_report(folder, result.record, result.worst_maps, settings, describe_environment())
