"""The metric of a network with an early exit over its mean latency, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_exit_curve"]


def draw_exit_curve(rows: Sequence[Mapping[str, Any]], metric: str, path: str | Path) -> Path:
    """The thresholds as a curve, its two ends marked, and other networks as points.

    Args:
        rows: with ``mean ms`` and the metric; those of the curve with ``threshold`` and ``exit rate``, the others with
            ``model``.
        metric: name of the metric.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    curve = sorted((row for row in rows if "threshold" in row), key=lambda row: row["exit rate"])
    figure = Figure(figsize=(8, 6), layout="tight")
    axis = figure.subplots()
    axis.plot([row["mean ms"] for row in curve], [row[metric] for row in curve], "o-", label="early exit")
    for row in curve:
        axis.annotate(
            f"{row['exit rate']:.0%}",
            (row["mean ms"], row[metric]),
            fontsize=7,
            xytext=(4, -9),
            textcoords="offset points",
        )
    for row, name in ((curve[-1], "most leave early"), (curve[0], "fewest leave early")):
        axis.plot(row["mean ms"], row[metric], "s", markersize=9, label=f"{name} (threshold {row['threshold']:.3g})")
    for row in rows:
        if "threshold" not in row:
            axis.plot(row["mean ms"], row[metric], "^", markersize=9, label=row["model"])
    axis.set(xlabel="mean ms of an image", ylabel=metric, title="percentages: images that leave at the early exit")
    axis.grid(visible=True, alpha=0.3)
    axis.legend(loc="lower right")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
