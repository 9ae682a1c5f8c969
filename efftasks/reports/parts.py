"""What a part of a report consists of: sections of the page, figures for JSON, and tables for CSV files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Part", "ReportSettings", "Rows", "write_figures"]

Rows = tuple[Sequence[str], Sequence[Sequence[Any]]]  # headings, and cells by row


@dataclass(frozen=True)
class ReportSettings:
    """How a report is made.

    Attributes:
        score_thr: score from which a detection counts in the confusion matrix and in pictures; None for that of the
            highest F1 of all classes together.
        iou_thr: IoU or OKS from which a detection is right.
        pixel_range: of the images, see :class:`efftasks.imaging.prediction.Prediction`.
        palette: (b, g, r) of each class of label maps; empty for a default palette.
        pictures: number of crops of each kind.
        images: number of whole images of each kind.
    """

    score_thr: float | None = None
    iou_thr: float = 0.5
    pixel_range: tuple[float, float] | None = None
    palette: Sequence[tuple[int, int, int]] = ()
    pictures: int = 24
    images: int = 8


@dataclass(frozen=True)
class Part:
    """A part of a report.

    Attributes:
        sections: of the page.
        figures: what the page shows as numbers, for JSON.
        tables: name of a CSV file without suffix -> its rows.
    """

    sections: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Rows] = field(default_factory=dict)


def write_figures(folder: Path, figures: dict[str, Any], tables: Mapping[str, Rows]) -> None:
    """Write ``report.json`` and the CSV files into a folder that exists; NaN is null, or an empty cell.

    CSV files of an older report there, which this one does not have, are removed.
    """
    for name in _tables_of(folder / "report.json") - set(tables):
        (folder / f"{name}.csv").unlink(missing_ok=True)
    text = json.dumps(_finite({**figures, "tables": sorted(tables)}), indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    for name, (columns, rows) in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([None if _is_nan(value) else value for value in row] for row in rows)


def _tables_of(path: Path) -> set[str]:
    """Names of the CSV files that a report states; none if there is no report."""
    try:
        names = json.loads(path.read_bytes())["tables"]
        return {name for name in names if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if _is_nan(value) else value
