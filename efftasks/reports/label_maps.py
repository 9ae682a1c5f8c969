"""The part of a report on label maps: IoU by class, confused classes, and the images with the most wrong pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.images import UnreadableImage, read_image
from efftasks.imaging.semantic_drawing import draw_legend, draw_semantic, semantic_palette
from efftasks.reports import page
from efftasks.reports.drawing import draw_bars, draw_confusion, draw_histograms
from efftasks.reports.page import Picture
from efftasks.reports.parts import Part, ReportSettings
from efftasks.reports.pictures import as_jpeg, fitted

__all__ = ["LabelMaps", "class_ious", "label_map_part"]

_PANEL = 330  # width of a picture in a row of four
_WRONG = (60, 60, 235)  # (b, g, r) of wrong pixels
_IGNORE = 255


class LabelMaps(NamedTuple):
    """The label maps of one image.

    Attributes:
        image: index into the images of the record.
        prediction: uint8 (H, W).
        truth: uint8 (H, W); pixels of 255 do not count.
        wrong: share of the annotated pixels whose label is wrong.
    """

    image: int
    prediction: np.ndarray
    truth: np.ndarray
    wrong: float


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class: float64 (..., C) of matrices (..., C, C); NaN for a class in neither of the two."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def label_map_part(record: EvaluationRecord, worst: Sequence[LabelMaps], settings: ReportSettings) -> Part:
    """The part on label maps.

    Args:
        record: with label maps.
        worst: those with the most wrong pixels, the worst first.
        settings: of the report.
    """
    assert record.confusion is not None
    names, total = record.semantic_classes, record.confusion.sum(0)
    part = Part()
    by_class = _by_class(names, total)
    part.tables["label_map_by_class"] = by_class
    part.figures["by_class"] = [dict(zip(by_class[0], row)) for row in by_class[1]]
    bars = draw_bars({row[0]: row[1] for row in by_class[1] if row[1] is not None}, "IoU by class, percent", most=100)
    note = "In percent, of the pixels of all images together. A class in neither label maps nor predictions has no IoU."
    part.sections.append(
        page.section(
            "Label maps: IoU by class",
            page.paragraph(note),
            page.figure(bars, "IoU by class"),
            page.table(*by_class, sortable=True),
        )
    )
    _add_confusion(part, names, total)
    _add_images(part, record)
    part.sections.append(_error_maps(record, worst, settings))
    return part


def _by_class(names: Sequence[str], total: np.ndarray) -> tuple[Sequence[str], list[list[Any]]]:
    hits, true, predicted = np.diag(total), total.sum(1), total.sum(0)
    ious = class_ious(total)
    rows: list[list[Any]] = []
    for i, name in enumerate(names):
        shares = [100 * float(hits[i] / count[i]) if count[i] else None for count in (true, predicted)]
        iou = None if np.isnan(ious[i]) else round(100 * float(ious[i]), 2)  # as mmseg rounds it
        rows.append([name, iou, *shares, 100 * float(true[i] / max(total.sum(), 1))])
    return ("class", "IoU", "recall", "precision", "share of pixels"), rows


def _add_confusion(part: Part, names: Sequence[str], total: np.ndarray) -> None:
    shares = total / np.maximum(total.sum(1, keepdims=True), 1)
    drawn = page.figure(draw_confusion(np.round(100 * shares, 1), names, shares), "confusion of pixels")
    wrong = total * ~np.eye(len(names), dtype=bool)
    order = [np.unravel_index(i, total.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:15]]
    rows = [
        [names[i], names[j], 100 * float(shares[i, j]), 100 * float(wrong[i, j] / wrong.sum())]
        for i, j in order
        if wrong[i, j]
    ]
    columns = ("true", "predicted", "percent of the class", "percent of all wrong pixels")
    pairs = (
        page.paragraph("", "Pairs with the most wrong pixels") + page.table(columns, rows, sortable=True)
        if rows
        else ""
    )
    note = "Percent of the pixels of a true class, by predicted class."
    part.sections.append(page.section("Label maps: classes that are confused", page.paragraph(note), drawn, pairs))
    part.tables["label_map_confusion"] = (("true", *names), [[n, *map(int, row)] for n, row in zip(names, total)])
    part.figures["confusion"] = dict(names=list(names), matrix=total.tolist())


def _add_images(part: Part, record: EvaluationRecord) -> None:
    assert record.confusion is not None
    pixels = record.confusion.sum((1, 2))
    right = np.trace(record.confusion, axis1=1, axis2=2)
    wrong = 100 * (1 - right / np.maximum(pixels, 1))
    counted = np.flatnonzero(pixels)
    ious = [float(np.nanmean(class_ious(record.confusion[i]))) for i in counted]
    rows = [
        [record.images[i]["file_name"], float(wrong[i]), 100 * iou]
        for i, iou in sorted(zip(counted, ious), key=lambda pair: -wrong[pair[0]])
    ]
    columns = ("image", "wrong pixels, percent", "mean IoU of its classes")
    part.tables["label_map_images"] = (columns, rows)
    drawn = draw_histograms(
        {"images by wrong pixels": wrong[counted], "images by mean IoU": 100 * np.array(ious)}, "percent", high=100
    )
    table = page.table(columns, rows[:20], sortable=True)
    part.sections.append(
        page.section(
            "Label maps: images",
            page.figure(drawn, "images by errors"),
            page.paragraph(f"The {min(20, len(rows))} with the most wrong pixels; all are in label_map_images.csv."),
            table,
        )
    )


def _error_maps(record: EvaluationRecord, worst: Sequence[LabelMaps], settings: ReportSettings) -> str:
    palette = list(settings.palette) or semantic_palette(len(record.semantic_classes))
    pictures = []
    for maps in worst:
        info = record.images[maps.image]
        try:
            image = read_image(info["path"], settings.pixel_range)
        except UnreadableImage:
            continue
        if maps.wrong > 0 and image.shape[:2] == maps.truth.shape:
            caption = f"{info['file_name']}: {100 * maps.wrong:.1f} % of the pixels are wrong"
            pictures.append(Picture(as_jpeg(_error_map(image, maps, palette)), caption))
    if not pictures:
        return ""
    legend = page.figure(
        as_jpeg(draw_legend(record.semantic_classes, palette[: len(record.semantic_classes)], 1000)), "colors"
    )
    note = "Image, ground truth, prediction, and wrong pixels in red (black: not annotated); the most wrong ones first."
    return page.section(
        "Label maps: images with the most errors", page.paragraph(note), legend, page.gallery(pictures, "wide")
    )


def _error_map(image: np.ndarray, maps: LabelMaps, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    gray = cv2.merge([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3)
    errors = cv2.addWeighted(gray, 0.5, np.full_like(gray, 90), 0.5, 0)
    errors[(maps.prediction != maps.truth) & (maps.truth != _IGNORE)] = _WRONG
    errors[maps.truth == _IGNORE] = 0
    drawn = [draw_semantic(image, labels, palette, opacity=0.65) for labels in (maps.truth, maps.prediction)]
    panels = [fitted(panel, _PANEL) for panel in (image, *drawn, errors)]
    gap = np.full_like(panels[0][:, :4], 255)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
