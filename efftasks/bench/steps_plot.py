"""Accuracy against measured latency as a picture: a path from the dense model through all compression steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["draw_accuracy_against_latency"]


class _Point(NamedTuple):
    number: int  # of the row
    name: str
    accuracy: float  # in points
    stats: Mapping[str, float]  # in ms


def draw_accuracy_against_latency(
    rows: Sequence[Mapping[str, Any]], runtimes: Sequence[str], metric: str, factor: float, path: str | Path
) -> Path:
    """One panel a runtime: each file a point, its median time across, its accuracy up, an arrow from the one before.

    Args:
        rows: in order, the dense model first; with ``step``, ``file``, ``input``, ``metric on`` (runtime -> value) and
            ``latency`` (runtime -> dict with ``p50``, ``minimum`` and ``p90`` in ms). A row that lacks one of them for
            a runtime is left out of its panel.
        runtimes: names, a panel each.
        metric: its name.
        factor: that makes its values points of 100.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    count = max(1, len(runtimes))
    figure = Figure(figsize=(6.6 * count, 5.0), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    sizes = ", ".join(dict.fromkeys(str(row["input"]) for row in rows))
    for axis, runtime in zip(axes, runtimes):
        points = [
            _Point(i, _name(row, rows), factor * row["metric on"][runtime], row["latency"][runtime])
            for i, row in enumerate(rows)
            if isinstance(row["latency"].get(runtime), Mapping) and row["metric on"].get(runtime) is not None
        ]
        axis.set(title=f"{runtime}, {sizes}", xlabel="latency in ms: median, bar from the least to the 90th percentile")
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        if points:
            _draw_panel(axis, points)
    accuracies = [factor * value for row in rows for value in row["metric on"].values() if value is not None]
    if accuracies:  # at least two points high: otherwise noise would look like a difference
        margin = max(1.0, 0.2 * (max(accuracies) - min(accuracies)))
        axes[0].set_ylim(min(accuracies) - margin, max(accuracies) + margin)
    axes[0].set_ylabel(f"{metric}, points")
    path = Path(path)
    figure.savefig(path, dpi=110)
    return path


def _name(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The step; and the file, where the step has several."""
    several = sum(other["step"] == row["step"] for other in rows) > 1
    return f"{row['step']}, {row['file']}" if several else str(row["step"])


def _draw_panel(axis: Any, points: Sequence[_Point]) -> None:
    """Points with their numbers, arrows, and a legend; the dashed line is the accuracy of the dense model."""
    dense = points[0]
    axis.axhline(dense.accuracy, linestyle="--", linewidth=1, color="gray", zorder=0)
    for before, after in itertools.pairwise(points):
        ends = [(point.stats["p50"], point.accuracy) for point in (after, before)]
        arrow = dict(arrowstyle="->", color="gray", alpha=0.7, shrinkA=9, shrinkB=9)
        axis.annotate("", xy=ends[0], xytext=ends[1], arrowprops=arrow)
    for point in points:
        median = point.stats["p50"]
        spread = [[median - point.stats["minimum"]], [point.stats["p90"] - median]]
        faster = f", {dense.stats['p50'] / median:.2f} x" if point.number > dense.number else ""
        label = f"{point.number}  {point.name}: {point.accuracy:.1f}, {median:.3g} ms{faster}"
        color = "black" if point.number == 0 else f"C{(point.number - 1) % 10}"
        axis.errorbar(median, point.accuracy, xerr=spread, fmt="o", markersize=15, capsize=3, color=color, label=label)
        axis.annotate(
            str(point.number), (median, point.accuracy), color="white", fontsize=9, ha="center", va="center", zorder=5
        )
    axis.set_xlim(right=1.1 * max(point.stats["p90"] for point in points))
    axis.legend(loc="best", fontsize=9, markerscale=0.5)
