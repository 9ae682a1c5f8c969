"""Accuracy against measured latency as a picture: a path from the dense model through all compression steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_accuracy_against_latency"]


def draw_accuracy_against_latency(
    rows: Sequence[Mapping[str, Any]], runtimes: Sequence[str], metric: str, factor: float, path: str | Path
) -> Path:
    """One panel a runtime: each file a point, its median time across, its accuracy up, an arrow from the one before.

    Args:
        rows: in order, the dense model first; with ``step``, ``file``, ``metric on`` (runtime -> value) and ``latency``
            (runtime -> dict with ``p50`` and ``iqr`` in ms). Rows without one of them for a runtime are left out there.
        runtimes: names, a panel each.
        metric: its name.
        factor: that makes its values points of 100.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * max(1, len(runtimes)), 4.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(runtimes)), squeeze=False, sharey=True)[0]
    several = len({row["step"] for row in rows}) < len(rows)
    for axis, runtime in zip(axes, runtimes):
        points = [
            (row["latency"][runtime]["p50"], factor * row["metric on"][runtime], row["latency"][runtime]["iqr"], row)
            for row in rows
            if isinstance(row["latency"].get(runtime), Mapping) and row["metric on"].get(runtime) is not None
        ]
        _draw_panel(axis, points, several)
        axis.set(title=f"{runtime}, {rows[0]['input']}", xlabel="median latency, ms (bars: quartiles)")
        axis.set_xlim(left=0)
    axes[0].set_ylabel(f"{metric}, points")
    path = Path(path)
    figure.savefig(path, dpi=110)
    return path


def _draw_panel(axis: Any, points: Sequence[tuple[float, float, float, Mapping[str, Any]]], several: bool) -> None:
    """Points, spreads, arrows and labels; the dashed line is the accuracy of the dense model."""
    if not points:
        return
    axis.axhline(points[0][1], linestyle="--", linewidth=1, color="gray", zorder=0)
    for (x1, y1, *_), (x2, y2, *_) in itertools.pairwise(points):
        arrow = dict(arrowstyle="->", color="tab:gray", shrinkA=7, shrinkB=7)
        axis.annotate("", xy=(x2, y2), xytext=(x1, y1), arrowprops=arrow)
    for i, (x, y, iqr, row) in enumerate(points):
        color = "black" if i == 0 else f"C{(i - 1) % 10}"
        axis.errorbar(x, y, xerr=iqr / 2, fmt="o", markersize=7, capsize=3, color=color)
        name = f"{row['step']}, {row['file']}" if several else str(row["step"])
        speed = "" if i == 0 else f"  {points[0][0] / x:.2f} x"
        axis.annotate(
            f"{name}{speed}", (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, color=color
        )
    values = [y for _, y, *_ in points]
    margin = max(1.0, 0.15 * (max(values) - min(values)))
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, min(values) - margin), max(high, max(values) + 1.5 * margin))
    axis.set_xlim(right=1.15 * max(x + iqr / 2 for x, _, iqr, _ in points))
    axis.grid(alpha=0.3)
