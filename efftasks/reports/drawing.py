"""Figures of reports with matplotlib, as data URIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from efftasks.reports.curves import Bin, Curve
from efftasks.reports.page import FIGURE_COLOR, figure_text, figure_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_bars",
    "draw_calibration",
    "draw_confusion",
    "draw_costs",
    "draw_curves",
    "draw_histograms",
    "draw_lines",
]

_NAMED = 8  # classes with a color of their own
_POINTS = 250  # of a line
_BLUE, _ORANGE = "#3b82c4", "#e08a2e"  # seen on white and on black
_MOST_NUMBERS = 16  # classes up to which a matrix shows its numbers


def _new(columns: int, width: float = 11.0, height: float = 3.6) -> tuple[Any, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.25, color=FIGURE_COLOR, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def draw_curves(curves: Sequence[Curve], pooled: Curve, score_thr: float) -> str:
    """Precision over recall and F1 over the score by class, and all over the score for all classes together."""
    figure, (left, middle, right) = _new(3)
    order = sorted(curves, key=lambda curve: -curve.positives)
    for i, curve in reversed(list(enumerate(order))):
        if not len(curve.scores) or not curve.positives:
            continue
        points = curve.points(_POINTS)
        named = i < _NAMED
        style: dict[str, Any] = (
            dict(color=f"C{i}", label=figure_text(curve.name), linewidth=1.5)
            if named
            else dict(color=FIGURE_COLOR, alpha=0.35, linewidth=0.7)
        )
        left.plot(curve.recall[points], curve.precision[points], **style)
        middle.plot(curve.scores[points], curve.f1[points], **style)
        if named and curve.best is not None:
            middle.plot(curve.scores[curve.best], curve.f1[curve.best], "o", color=f"C{i}", markersize=5, zorder=3)
    points = pooled.points(_POINTS)
    for values, name in ((pooled.precision, "precision"), (pooled.recall, "recall"), (pooled.f1, "F1")):
        right.plot(pooled.scores[points], values[points], label=name, linewidth=1.5)
    right.axvline(score_thr, color=FIGURE_COLOR, linestyle="--", linewidth=1)
    left.set(title="precision over recall", xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    middle.set(title="F1 over the score", xlabel="score from which detections count", xlim=(0, 1.01), ylim=(0, 1.02))
    right.set(title="all classes together", xlabel="score from which detections count", xlim=(0, 1.01), ylim=(0, 1.02))
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            handles, labels = axes.get_legend_handles_labels()
            backwards = slice(None, None, -1 if axes is left else 1)  # drawn with the largest class on top
            axes.legend(handles[backwards], labels[backwards], fontsize=7, loc="lower left")
    return figure_uri(figure)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], shares: np.ndarray) -> str:
    """A matrix, true classes by rows: its shares as colors, and its numbers where there are few classes.

    Args:
        matrix: (C, C), the numbers.
        names: of rows and columns.
        shares: (C, C) in [0, 1].
    """
    from matplotlib.colors import LinearSegmentedColormap

    count, names = len(names), [figure_text(name) for name in names]
    side = min(max(4.5, 0.55 * count + 1.8), 11.0)
    figure, (axes,) = _new(1, side, side * 0.9)
    colors = LinearSegmentedColormap.from_list("blues", [(0.23, 0.51, 0.77, 0.0), (0.23, 0.51, 0.77, 1.0)])
    axes.grid(visible=False)
    axes.imshow(np.nan_to_num(shares), cmap=colors, vmin=0, vmax=1, aspect="equal")
    ticks, size = range(count), 8 if count <= _MOST_NUMBERS else max(2.5, 8 - count / 18)
    axes.set_xticks(
        ticks, names, rotation=90 if count > 6 else 30, ha="center" if count > 6 else "right", fontsize=size
    )
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= _MOST_NUMBERS:
        for i, j in zip(*np.nonzero(matrix)):
            color = "#ffffff" if shares[i, j] > 0.6 else FIGURE_COLOR
            number = matrix[i, j] if np.issubdtype(matrix.dtype, np.integer) else f"{matrix[i, j]:.1f}"
            axes.text(j, i, str(number), ha="center", va="center", fontsize=8, color=color)
    return figure_uri(figure)


def draw_costs(costs: Mapping[str, float], counts: Mapping[str, int]) -> str:
    """What errors of each kind cost in points of AP, and how many there are."""
    figure, (left, right) = _new(2, 11.0, 2.7)
    names = list(costs)[::-1]
    values = [100 * costs[name] for name in names]
    for axes, numbers, color, form in (
        (left, values, _BLUE, "{:.1f}"),
        (right, [counts[name] for name in names], _ORANGE, "{}"),
    ):
        axes.barh(names, numbers, color=color, height=0.65)
        for i, number in enumerate(numbers):
            axes.annotate(
                form.format(number),
                (number, i),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=FIGURE_COLOR,
            )
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
    left.set(title="AP at this IoU lost, in points")
    right.set(title="errors among all detections that are scored")
    return figure_uri(figure)


def draw_calibration(bins: Sequence[Bin]) -> str:
    """The share of right detections by score, and the number of detections."""
    figure, (left, right) = _new(2, 9.0, 3.4)
    low, width = [each.low for each in bins], bins[0].high - bins[0].low
    left.bar(
        low, [0 if each.number == 0 else each.share_right for each in bins], width * 0.94, align="edge", color=_BLUE
    )
    left.plot([0, 1], [0, 1], "--", color=FIGURE_COLOR, linewidth=1)
    points = [(each.mean_score, each.share_right) for each in bins if each.number]
    left.plot([x for x, _ in points], [y for _, y in points], "o", color=_ORANGE, markersize=4)
    left.set(title="share of right detections", xlabel="score", xlim=(0, 1), ylim=(0, 1.02))
    right.bar(low, [each.number for each in bins], width * 0.94, align="edge", color=_ORANGE)
    right.set(title="detections", xlabel="score", xlim=(0, 1))
    if any(each.number for each in bins):
        right.set_yscale("log")
    return figure_uri(figure)


def draw_histograms(values: Mapping[str, np.ndarray], xlabel: str, low: float = 0.0, high: float = 1.0) -> str:
    """The distribution of values, a panel for each name."""
    figure, panels = _new(len(values), 5.5 * len(values), 2.8)
    for axes, (name, numbers), color in zip(panels, values.items(), (_BLUE, _ORANGE) * len(values)):
        axes.hist(np.clip(numbers, low, high), bins=25, range=(low, high), color=color)
        axes.set(title=name, xlabel=xlabel, xlim=(low, high))
    return figure_uri(figure)


def draw_bars(values: Mapping[str, float], title: str, most: float = 1.0) -> str:
    """A bar for each name, the smallest value first; NaN is left out."""
    items = sorted(((value, name) for name, value in values.items() if not np.isnan(value)), reverse=True)
    figure, (axes,) = _new(1, 8.0, min(max(1.6, 0.26 * len(items) + 0.7), 14.0))
    axes.barh([figure_text(name) for _, name in items], [value for value, _ in items], color=_BLUE, height=0.7)
    axes.set(title=title, xlim=(0, most))
    axes.tick_params(axis="y", labelsize=8 if len(items) < 40 else 5)
    axes.grid(visible=False, axis="y")
    return figure_uri(figure)


def draw_lines(x: np.ndarray, lines: Mapping[str, np.ndarray], title: str, xlabel: str) -> str:
    """Lines over common x in [0, 1]."""
    figure, (axes,) = _new(1, 9.0, 3.6)
    for i, (name, values) in enumerate(lines.items()):
        axes.plot(
            x, values, label=figure_text(name), linewidth=1.4, color=f"C{i % 10}", linestyle="-" if i < 10 else "--"
        )
    axes.set(title=title, xlabel=xlabel, ylim=(0, 1.02), xlim=(float(x[0]), float(x[-1])))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure_uri(figure)
