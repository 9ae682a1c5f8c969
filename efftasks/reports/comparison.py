"""A comparison of models as data: what the page, the JSON file and the tables are made of."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from efftasks.evaluation.comparison import MetricRow
from efftasks.evaluation.differences import Difference, Interval

__all__ = ["ComparedModel", "Comparison", "cost_table", "main_table", "write_data"]


@dataclass(frozen=True)
class ComparedModel:
    """A model of a comparison.

    Attributes:
        name: short, different from the others.
        path: as it was given.
        megabytes: of its files; None of reports.
        parameters: millions, of checkpoints; None of others.
        milliseconds: median of the network; None where it was not timed.
        ratio: milliseconds over those of the first model, with the interval of its median; None where not timed.
        test_seconds: mean of the evaluation for an image, with reading it; of the time when it was evaluated.
    """

    name: str
    path: str
    megabytes: float | None
    parameters: float | None
    milliseconds: float | None
    ratio: Interval | None
    test_seconds: float


@dataclass(frozen=True)
class Comparison:
    """What is shown.

    Attributes:
        models: the first is the one that the others are compared with.
        rows: metrics, in points of 100.
        verdicts: sentences.
        images: number of images.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        environment: what it was measured on.
    """

    models: Sequence[ComparedModel]
    rows: Sequence[MetricRow]
    verdicts: Sequence[str]
    images: int
    resamples: int
    seed: int
    environment: Mapping[str, str] = field(default_factory=dict)


def main_table(comparison: Comparison, groups: Sequence[str] = ("main", "more")) -> list[dict[str, str]]:
    """Rows of some groups as text: metric, each model with its interval, each difference with its interval."""
    several = len({row.part for row in comparison.rows}) > 1
    table = []
    for row in comparison.rows:
        if row.group in groups:
            cells = {"metric": f"{row.part}: {row.name}" if several else row.name}
            for model, value in zip(comparison.models, row.values):
                cells[model.name] = _interval(value)
            for model, difference in zip(comparison.models[1:], row.differences):
                cells[f"{model.name} - {comparison.models[0].name}"] = _difference(difference)
            table.append(cells)
    return table


def cost_table(comparison: Comparison) -> list[dict[str, str]]:
    """Size and latency of each model as text; columns that no model has are left out, and all of them of reports."""
    table = []
    for model in comparison.models:
        cells = {
            "model": model.name,
            "file MB": _number(model.megabytes, ".2f"),
            "parameters M": _number(model.parameters, ".2f"),
            "network ms (median)": _number(model.milliseconds, ".2f"),
            f"time / {comparison.models[0].name}": "" if model.ratio is None else _ratio(model.ratio),
        }
        table.append(cells)
    empty = [key for key in table[0] if not any(cells[key] for cells in table)]
    if len(empty) == len(table[0]) - 1:
        return []
    return [{key: value for key, value in cells.items() if key not in empty} for cells in table]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio(value: Interval) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _interval(value: Interval) -> str:
    return "-" if math.isnan(value.value) else f"{value.value:.2f} ({value.low:.1f} to {value.high:.1f})"


def _difference(value: Difference) -> str:
    if value.value == value.low == value.high == 0:
        return "0"
    return "-" if math.isnan(value.value) else f"{value.value:+.2f} ({value.low:+.2f} to {value.high:+.2f})"


def write_data(comparison: Comparison, stem: Path) -> tuple[Path, Path]:
    """Write all figures as ``<stem>.json`` and, a row for each metric and model, as ``<stem>.csv``.

    Numbers that are not defined are null, or empty.
    """
    data, sheet = stem.with_suffix(".json"), stem.with_suffix(".csv")
    data.write_text(json.dumps(_plain(_as_data(comparison)), indent=1) + "\n", encoding="utf-8")
    columns = ("part", "group", "metric", "model", "value", "low", "high")
    of_difference = ("difference", "difference_low", "difference_high", "detectable", "p", "p_adjusted")
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*columns, *of_difference))
        for row in comparison.rows:
            for model, value, difference in zip(comparison.models, row.values, (None, *row.differences)):
                numbers = [*value, *(() if difference is None else asdict(difference).values())]
                writer.writerow([row.part, row.group, row.name, model.name, *map(_plain, numbers)])
    return data, sheet


def _as_data(comparison: Comparison) -> dict[str, Any]:
    rows = [
        {
            **{key: getattr(row, key) for key in ("part", "group", "name")},
            "values": [value._asdict() for value in row.values],
            "differences": [asdict(difference) | {"is_real": difference.is_real} for difference in row.differences],
        }
        for row in comparison.rows
    ]
    models = [
        asdict(model) | {"ratio": None if model.ratio is None else model.ratio._asdict()} for model in comparison.models
    ]
    rest = {key: getattr(comparison, key) for key in ("verdicts", "images", "resamples", "seed", "environment")}
    return {"models": models, "rows": rows, **rest}


def _plain(value: Any) -> Any:
    """NaN as None, so that the file is JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and math.isnan(value) else value
