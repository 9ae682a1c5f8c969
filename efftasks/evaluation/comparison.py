"""Records of several models on the same data, compared: metrics with intervals, and differences from the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from efftasks.evaluation.bootstrap import ResampledAP, ap_of_resamples, iou_of_resamples, resample
from efftasks.evaluation.differences import (
    Difference,
    Interval,
    adjust_by_holm,
    difference_of,
    interval_of,
    least_p,
)
from efftasks.evaluation.matches import Matches, match
from efftasks.evaluation.records import EvaluationRecord
from efftasks.structures.errors import UserError

__all__ = ["PARTS", "MetricRow", "aligned", "check_comparable", "compare_records", "match_record", "shared_kinds"]

# Kind of a record -> what is compared.
PARTS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints", "semantic": "label maps"}
_NAMES = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75"}
_SIZES = {"mAP_s": "small", "mAP_m": "medium", "mAP_l": "large"}


@dataclass(frozen=True)
class MetricRow:
    """A metric of all models, in points of 100.

    Attributes:
        part: what it is a metric of: a value of ``PARTS``.
        group: ``main`` (AP or mIoU), ``more``, ``size`` or ``class``.
        name: of the metric, of the range of sizes, or of the class.
        values: of each model.
        differences: of each model after the first, from the first.
    """

    part: str
    group: str
    name: str
    values: tuple[Interval, ...]
    differences: tuple[Difference, ...]


def check_comparable(records: Sequence[EvaluationRecord], names: Sequence[str]) -> None:
    """Refuse records that say nothing about each other.

    Args:
        records: at least two.
        names: of each in messages.

    Raises:
        UserError: the data or the tasks differ.
    """
    first = records[0]
    for record, name in zip(records[1:], names[1:]):
        if record.data_digest != first.data_digest:
            numbers = [len(x.images) for x in (first, record)]
            differ = f"{numbers[0]} and {numbers[1]} images" if numbers[0] != numbers[1] else "images or annotations"
            raise UserError(
                f"{names[0]} and {name} were evaluated on different data ({differ}), expected the same for a comparison"
            )
    if not shared_kinds(records) and not all(record.semantic_classes for record in records):
        tasks = ", ".join(f"{name}: {record.task}" for name, record in zip(names, records))
        raise UserError(f"nothing of the models can be compared ({tasks}), expected the same task")


def shared_kinds(records: Sequence[EvaluationRecord]) -> tuple[str, ...]:
    """Kinds of average precision that all records have."""
    return tuple(kind for kind in records[0].kinds if all(kind in record.kinds for record in records))


def aligned(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """The records, all with the ground truth of the first, so that images and objects have the same numbers in each.

    Records are comparable whatever the order of their images and annotations.

    Args:
        records: checked by :func:`check_comparable`.
    """
    return [replace(record, ground_truth=records[0].ground_truth) for record in records]


def match_record(record: EvaluationRecord, kinds: Iterable[str]) -> dict[str, Matches]:
    """Detections matched with objects, by kind; none of label maps alone."""
    if record.ground_truth is None:
        return {}
    sigmas = {"keypoints": record.sigmas}
    return {kind: match(record.ground_truth, record.detections, kind, sigmas.get(kind), record.model) for kind in kinds}


def compare_records(
    records: Sequence[EvaluationRecord],
    matches: Sequence[Mapping[str, Matches]],
    resamples: int = 2000,
    seed: int = 0,
) -> list[MetricRow]:
    """Metrics of all models with bootstrap intervals, on the same resamples.

    Rows of ``main`` have p adjusted for their number times that of the models after the first (Holm); the others are
    not adjusted.

    Args:
        records: from :func:`aligned`.
        matches: of each record, by kind, from :func:`match_record`.
        resamples: number of them.
        seed: of the resamples.
    """
    truth = records[0].ground_truth
    images = records[0].images if truth is None else truth["images"]
    weights = resample(len(images), resamples, seed)
    rows: list[MetricRow] = []
    for kind in matches[0]:
        assert truth is not None
        categories = sorted(truth["categories"], key=lambda category: category["id"])
        rows += _ap_rows(kind, [one[kind] for one in matches], weights, [str(x["name"]) for x in categories])
    if all(record.confusion is not None for record in records):
        ids = [image["id"] for image in images]
        confusions = [_in_order(record, ids) for record in records]
        rows += _iou_rows(confusions, weights, records[0].semantic_classes)
    return _adjusted(rows)


def _in_order(record: EvaluationRecord, ids: Sequence[int | str]) -> np.ndarray:
    """The confusion matrices in the order of ``ids``; of zeros where the record has no such image."""
    assert record.confusion is not None
    index = {image["id"]: i for i, image in enumerate(record.images)}
    padded = np.concatenate([record.confusion, np.zeros_like(record.confusion[:1])])
    return padded[[index.get(i, -1) for i in ids]]


def _ap_rows(kind: str, matches: Sequence[Matches], weights: np.ndarray, classes: Sequence[str]) -> list[MetricRow]:
    images = weights.shape[1]
    ones = np.ones((1, images), np.int32)
    exact = [ap_of_resamples(one, ones) for one in matches]
    part = PARTS[kind]
    shown = tqdm(matches, desc=f"resamples, {part}", disable=None, leave=False)
    resampled = [ap_of_resamples(one, weights) for one in shown]

    def row(group: str, name: str, key: str) -> MetricRow:
        values, samples = (
            [100 * result.values[f"{kind}_{key}"] for result in results] for results in (exact, resampled)
        )
        return _row(part, group, name, values, samples, images)

    rows = [row("more" if key != "mAP" else "main", name, key) for key, name in _NAMES.items()]
    rows += [row("size", name, key) for key, name in _SIZES.items() if f"{kind}_{key}" in exact[0].values]
    rows += [
        _row(part, "class", name, [_class(x, k) for x in exact], [_class(x, k) for x in resampled], images)
        for k, name in enumerate(classes)
    ]
    return [one for one in rows if not np.isnan(one.values[0].value)]  # no objects of that kind


def _class(result: ResampledAP, index: int) -> np.ndarray:
    return 100 * result.classwise[:, index]


def _iou_rows(confusions: Sequence[np.ndarray], weights: np.ndarray, classes: Sequence[str]) -> list[MetricRow]:
    images = weights.shape[1]
    ones = np.ones((1, images), np.int32)
    exact = [iou_of_resamples(confusion, ones) for confusion in confusions]
    resampled = [iou_of_resamples(confusion, weights) for confusion in confusions]
    part = PARTS["semantic"]
    rows = [_row(part, "main", "mIoU", [means for means, _ in exact], [means for means, _ in resampled], images)]
    rows += [
        _row(part, "class", name, [ious[:, k] for _, ious in exact], [ious[:, k] for _, ious in resampled], images)
        for k, name in enumerate(classes)
    ]
    return [one for one in rows if not all(np.isnan(value.value) for value in one.values)]


def _row(
    part: str,
    group: str,
    name: str,
    exact: Sequence[np.ndarray],
    resampled: Sequence[np.ndarray],
    images: int,
) -> MetricRow:
    values = [float(value[0]) for value in exact]
    lowest = least_p(images)
    return MetricRow(
        part,
        group,
        name,
        tuple(interval_of(value, samples) for value, samples in zip(values, resampled)),
        tuple(
            difference_of(value - values[0], resampled[0], samples, lowest)
            for value, samples in zip(values[1:], resampled[1:])
        ),
    )


def _adjusted(rows: Sequence[MetricRow]) -> list[MetricRow]:
    family = [difference for row in rows if row.group == "main" for difference in row.differences]
    adjusted = iter(adjust_by_holm(family))
    return [
        replace(row, differences=tuple(next(adjusted) for _ in row.differences)) if row.group == "main" else row
        for row in rows
    ]
