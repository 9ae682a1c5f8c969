"""The part of a report on boxes, masks or keypoints: accuracy by class and size, curves, errors, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from efftasks.evaluation.coco_scores import CocoScores, mean_precision, score_coco
from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports import page
from efftasks.reports.confusion import BACKGROUND, confusion_matrix
from efftasks.reports.curves import Curve, calibration, calibration_error, class_curve, pooled_curve
from efftasks.reports.drawing import draw_calibration, draw_confusion, draw_costs, draw_curves, draw_histograms
from efftasks.reports.error_kinds import KINDS, ErrorKinds, find_errors
from efftasks.reports.matches import Matches, match
from efftasks.reports.object_pictures import object_galleries
from efftasks.reports.parts import Part, ReportSettings

__all__ = ["main_kind", "object_part"]

_TITLES = {"bbox": "Boxes", "segm": "Masks", "keypoints": "Keypoints"}
_SIZES = ("all", "small", "medium", "large")  # of COCO: up to 32 x 32 and up to 96 x 96 pixels
_EDGES = (32**2, 96**2)
_CURVE_ROWS = 1000  # of a class in the CSV file


def main_kind(kinds: Sequence[str]) -> str:
    """The kind that confusion, calibration and pictures are of: masks or keypoints before boxes."""
    return next(kind for kind in ("segm", "keypoints", "bbox") if kind in kinds)


def object_part(record: EvaluationRecord, kind: str, settings: ReportSettings) -> Part:
    """The part on one kind of a record; the main kind has all figures, others accuracy, curves and errors."""
    assert record.ground_truth is not None
    sigmas = record.sigmas if kind == "keypoints" else None
    scores = score_coco("ground truth", record.ground_truth, record.detections, kind, "faster-coco-eval", sigmas)
    matches = match(record, kind, settings.iou_thr)
    curves = [class_curve(matches, label) for label in range(len(matches.names))]
    pooled = pooled_curve(matches)
    score_thr = settings.score_thr
    if score_thr is None:
        score_thr = 0.3 if pooled.best is None else float(pooled.scores[pooled.best])
    errors = find_errors(matches, settings.iou_thr)
    part = Part()
    part.figures.update(score_threshold=score_thr, scores=dict(scores.values))
    title, measure = _TITLES[kind], "OKS" if kind == "keypoints" else "IoU"
    by_class = _by_class(scores, curves, matches)
    by_size = _by_size(scores, matches, kind, score_thr)
    part.tables.update({f"{kind}_by_class": by_class, f"{kind}_by_size": by_size})
    part.figures.update(by_class=_dicts(by_class), by_size=_dicts(by_size))
    note = (
        f"Best threshold: the score of the highest F1, with the precision and recall there, at {measure} "
        f"{settings.iou_thr:g}. AP as COCO defines it. A click on a heading sorts."
    )
    part.sections.append(
        page.section(f"{title}: accuracy by class", page.paragraph(note), page.table(*by_class, sortable=True))
    )
    part.sections.append(page.section(f"{title}: accuracy by size", page.table(*by_size), _size_note(score_thr)))
    _add_curves(part, f"{title}: precision, recall and F1", kind, curves, pooled, score_thr)
    _add_errors(part, f"{title}: errors by kind", errors, kind, measure, settings.iou_thr)
    if kind == main_kind(record.kinds):
        _add_confusion(part, matches, score_thr, settings.iou_thr, measure)
        _add_calibration(part, matches, score_thr, settings.iou_thr, measure)
        if kind == "segm":
            _add_mask_overlaps(part, matches)
        part.sections.extend(object_galleries(record, matches, errors, score_thr, settings))
    return part


def _by_class(scores: CocoScores, curves: Sequence[Curve], matches: Matches) -> tuple[Sequence[str], list[list[Any]]]:
    columns = ("class", "objects", "AP", "AP50", "AP75", "best threshold", "precision", "recall", "F1", "detections")
    detections = np.bincount(matches.labels, minlength=len(curves))
    rows: list[list[Any]] = []
    for label, curve in enumerate(curves):
        precision = scores.precision[:, :, label, 0]
        values = [float(scores.classwise[label]), mean_precision(precision[0]), mean_precision(precision[5])]
        at_best: list[Any] = [None] * 4
        if curve.best is not None:
            at_best = [float(array[curve.best]) for array in (curve.scores, curve.precision, curve.recall, curve.f1)]
        rows.append([curve.name, curve.positives, *values, *at_best, int(detections[label])])
    return columns, rows


def _by_size(
    scores: CocoScores, matches: Matches, kind: str, score_thr: float
) -> tuple[Sequence[str], list[list[Any]]]:
    """AP by the area of objects, as the evaluator has it, and what is detected from a score on."""
    areas = np.array([row["area"] for row in matches.annotations], float)
    group = np.digitize(areas, _EDGES, right=True) + 1
    matched = matches.object_matches
    detected = (matched >= 0) & (np.append(matches.scores, -1.0)[matched] >= score_thr)
    names = [name for name in _SIZES if not (kind == "keypoints" and name == "small")]
    rows: list[list[Any]] = []
    for place, name in enumerate(names):
        inside = matches.must_match & ((group == _SIZES.index(name)) | (name == "all"))
        ap = mean_precision(scores.precision[:, :, :, place])
        recall = float(detected[inside].mean()) if inside.any() else None
        rows.append([name, int(inside.sum()), ap, int(detected[inside].sum()), recall])
    return ("size", "objects", "AP", "detected", "recall"), rows


def _size_note(score_thr: float) -> str:
    return page.paragraph(
        "Small: area of the object up to 32 x 32 pixels of the image; medium: up to 96 x 96. Detected and recall: with "
        f"scores from {score_thr:.3g} on."
    )


def _add_curves(part: Part, heading: str, kind: str, curves: Sequence[Curve], pooled: Curve, score_thr: float) -> None:
    note = "Points mark the best threshold of a class. Dashed: the score from which detections count on this page."
    drawn = page.figure(draw_curves(curves, pooled, score_thr), "precision, recall and F1", note)
    part.sections.append(page.section(heading, drawn))
    rows = []
    for curve in (*curves, pooled):
        points = curve.points(_CURVE_ROWS)
        columns = [array[points].tolist() for array in (curve.scores, curve.precision, curve.recall, curve.f1)]
        rows += [[curve.name, *values] for values in zip(*columns)]
    part.tables[f"{kind}_curves"] = (("class", "score", "precision", "recall", "F1"), rows)


def _add_errors(part: Part, heading: str, errors: ErrorKinds, kind: str, measure: str, iou_thr: float) -> None:
    explained = {
        "class": "right place, wrong class",
        "place": f"right class, {measure} of 0.1 to {iou_thr:g}",
        "both": f"wrong class, and {measure} below {iou_thr:g}",
        "duplicate": "the object was detected with a higher score",
        "background": f"no object with an {measure} above 0.1",
        "missed": "objects that no error of class or place explains",
    }
    columns = ("kind", "errors", "AP lost, points", "what it is")
    rows = [[name, errors.counts[name], 100 * errors.costs[name], explained[name]] for name in KINDS]
    note = (
        f"As in TIDE: what AP at {measure} {iou_thr:g} ({100 * errors.ap:.1f}) would gain if errors of one kind were "
        "mended. The gains do not add up. All detections that are scored count, also those of low scores."
    )
    drawn = page.figure(draw_costs(errors.costs, errors.counts), "errors by kind and their costs")
    part.sections.append(page.section(heading, page.paragraph(note), drawn, page.table(columns, rows)))
    part.tables[f"{kind}_errors"] = (columns, rows)
    part.figures["errors"] = dict(ap=errors.ap, counts=errors.counts, costs=errors.costs)


def _add_confusion(part: Part, matches: Matches, score_thr: float, iou_thr: float, measure: str) -> None:
    matrix = confusion_matrix(matches, score_thr, iou_thr)
    names = [*matches.names, BACKGROUND]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    note = (
        f"Detections with scores from {score_thr:.3g} on and {measure} from {iou_thr:g} on. The last column has missed "
        "objects, the last row detections on no object. Colors are shares of a row."
    )
    drawn = page.figure(draw_confusion(matrix, names, shares), "confusion matrix")
    pairs = _confused(matrix, names)
    part.sections.append(page.section("Confusion of classes", page.paragraph(note), drawn, pairs))
    part.tables["confusion"] = (("true", *names), [[name, *map(int, row)] for name, row in zip(names, matrix)])
    part.figures["confusion"] = dict(names=names, matrix=matrix.tolist())


def _confused(matrix: np.ndarray, names: Sequence[str], most: int = 12) -> str:
    """The pairs of classes that are confused most often; empty for none."""
    inner = matrix[:-1, :-1] * ~np.eye(len(matrix) - 1, dtype=bool)
    order = np.argsort(-inner, axis=None, kind="stable")[:most]
    places = [np.unravel_index(i, inner.shape) for i in order]
    rows = [
        [names[i], names[j], int(inner[i, j]), float(inner[i, j] / matrix[i].sum())] for i, j in places if inner[i, j]
    ]
    columns = ("true", "detected as", "objects", "share of the class")
    return page.paragraph("", "Classes that are confused") + page.table(columns, rows, sortable=True) if rows else ""


def _add_calibration(part: Part, matches: Matches, score_thr: float, iou_thr: float, measure: str) -> None:
    bins = calibration(matches, score_thr=0.0)
    error = calibration_error(bins)
    error_above = calibration_error(calibration(matches, score_thr=score_thr))
    note = (
        f"How often detections of a score are right ({measure} from {iou_thr:g} on); on the dashed line a score is the "
        f"share that is right. Expected calibration error: {error:.3f} of all detections, {error_above:.3f} of those "
        f"with scores from {score_thr:.3g} on."
    )
    drawn = page.figure(draw_calibration(bins), "calibration")
    part.sections.append(page.section("Calibration of scores", page.paragraph(note), drawn))
    columns = ("from", "to", "detections", "mean score", "share right")
    part.tables["calibration"] = (columns, [list(each) for each in bins])
    part.figures["calibration"] = dict(
        error=error, error_above_threshold=error_above, bins=_dicts(part.tables["calibration"])
    )


def _add_mask_overlaps(part: Part, matches: Matches) -> None:
    values = matches.overlaps[matches.hits]
    if not len(values):
        return
    note = f"Of {len(values)} matched masks; the mean is {values.mean():.3f}, the median {np.median(values):.3f}."
    drawn = page.figure(draw_histograms({"IoU of matched masks": values}, "IoU", low=0.5), "IoU of masks")
    part.sections.append(page.section("Overlap of masks", page.paragraph(note), drawn))
    part.figures["mask_iou"] = dict(matched=len(values), mean=float(values.mean()), median=float(np.median(values)))


def _dicts(table: tuple[Sequence[str], Sequence[Sequence[Any]]]) -> list[dict[str, Any]]:
    columns, rows = table
    return [dict(zip(columns, row)) for row in rows]
