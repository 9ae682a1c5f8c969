"""The report of an evaluation: a page, its figures as JSON and CSV, and the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports import page
from efftasks.reports.curves import best_thresholds
from efftasks.reports.keypoints import keypoint_part
from efftasks.reports.label_maps import LabelMaps, label_map_part
from efftasks.reports.matches import match
from efftasks.reports.objects import main_kind, object_part
from efftasks.reports.parts import Part, ReportSettings, write_figures
from efftasks.structures.errors import UserError, WorkError

__all__ = ["report_parts", "score_thresholds", "write_evaluation_report"]

_CARDS = {  # metrics to see first, and their short names; all are in the table
    "coco/bbox_mAP": "box AP",
    "coco/bbox_mAP_50": "box AP50",
    "coco/segm_mAP": "mask AP",
    "coco/segm_mAP_50": "mask AP50",
    "coco/keypoints_mAP": "keypoint AP",
    "coco/keypoints_mAP_50": "keypoint AP50",
    "mIoU": "mIoU",
    "aAcc": "pixels right, percent",
}


def write_evaluation_report(
    folder: str | Path,
    record: EvaluationRecord,
    worst_maps: Sequence[LabelMaps] = (),
    settings: ReportSettings | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html``, one file with all pictures; beside it ``report.json``, CSV files and the record.

    Args:
        folder: is created.
        record: of the evaluation.
        worst_maps: label maps to show, the worst first.
        settings: None for the defaults.
        environment: what it was measured on.

    Returns:
        The path of the page.

    Raises:
        WorkError: a file cannot be written.
    """
    folder = Path(folder)
    parts = report_parts(record, worst_maps, settings or ReportSettings())
    about = dict(model=record.model, task=record.task, images=len(record.images), seconds_per_image=record.seconds)
    figures = {**about, "metrics": record.metrics, **{name: part.figures for name, part in parts.items()}}
    metrics = page.section(
        "All metrics", page.table(("metric", "value"), [list(item) for item in record.metrics.items()])
    )
    body = [page.cards(_cards(record)), *(text for part in parts.values() for text in part.sections), metrics]
    lead = f"{record.task.replace('+', ', ')}, {len(record.images)} images"
    footer = ", ".join(f"{key} {value}" for key, value in (environment or {}).items())
    text = page.page(f"Report: {Path(record.model).name}", lead, body, footer, contents=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_figures(folder, figures, {name: rows for part in parts.values() for name, rows in part.tables.items()})
        path = page.write_page(folder / "index.html", text)
    except OSError as error:
        raise WorkError(f"{folder}: the report could not be written ({error.strerror})") from error
    record.save(folder)
    return path


def report_parts(
    record: EvaluationRecord, worst_maps: Sequence[LabelMaps], settings: ReportSettings
) -> dict[str, Part]:
    """The parts of a report by name: the kinds of the record, the main one first, and label maps."""
    parts: dict[str, Part] = {}
    if record.kinds:
        first = main_kind(record.kinds)
        for kind in (first, *(kind for kind in record.kinds if kind != first)):
            parts[kind] = object_part(record, kind, settings)
        if "keypoints" in record.kinds:
            parts["keypoint errors"] = keypoint_part(record, settings)
    if record.confusion is not None:
        parts["label maps"] = label_map_part(record, worst_maps, settings)
    return parts


def score_thresholds(record: EvaluationRecord, iou_thr: float = 0.5) -> dict[str, float]:
    """The score of the highest F1 of each class, of the record's main kind; classes without right detections have none.

    Raises:
        UserError: the record has no objects, or none is detected.
    """
    if not record.kinds:
        raise UserError(f"{record.model}: predicts label maps, which have no scores; expected a model with detections")
    thresholds = best_thresholds(match(record, main_kind(record.kinds), iou_thr))
    if not thresholds:
        raise UserError(f"{record.model}: none of its detections is right, so that there is no best threshold")
    return thresholds


def _cards(record: EvaluationRecord) -> dict[str, str]:
    values: dict[str, Any] = {
        name: f"{record.metrics[key]:.4g}" for key, name in _CARDS.items() if key in record.metrics
    }
    values["images"] = str(len(record.images))
    if record.ground_truth is not None:
        values["objects"] = str(len(record.ground_truth["annotations"]))
    values["time of an image"] = f"{1000 * record.seconds:.1f} ms"
    return values
