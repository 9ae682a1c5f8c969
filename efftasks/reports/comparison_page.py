"""The page of a comparison: verdicts, metrics with intervals, costs, and the images where the models differ most."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from efftasks.reports.compare_pictures import LEGEND
from efftasks.reports.comparison import Comparison, cost_table, main_table
from efftasks.reports.page import (
    FIGURE_COLOR,
    Picture,
    cards,
    figure,
    figure_text,
    figure_uri,
    gallery,
    page,
    paragraph,
    section,
    table,
    write_page,
)

__all__ = ["write_comparison_page"]

_METHOD = (
    "Each resample draws as many images as there are, with replacement, and all models are evaluated on the same "
    "resamples. Intervals are the middle 95 % of them. A difference is paired: it is that of two models on the same "
    "resample. p says how often one as large would be seen where there is none; those of the verdicts are adjusted for "
    "their number (Holm), those of sizes and classes are not. Intervals are about the images: what another training "
    "of the same recipe would give is not in them."
)


def write_comparison_page(comparison: Comparison, pictures: Sequence[Picture], path: Path, score_thr: float) -> Path:
    """Write the page.

    Args:
        comparison: what it shows.
        pictures: of the images where the models differ most, side by side.
        path: of the file.
        score_thr: least score of the detections in the pictures.
    """
    names = [model.name for model in comparison.models]
    title = f"{names[0]} against {', '.join(names[1:])}"
    lead = f"{comparison.images} images, {comparison.resamples} resamples, seed {comparison.seed}; points of 100."
    body = [
        cards(_cards(comparison)),
        section("Verdict", *map(_verdict, comparison.verdicts)),
        section("Metrics", _text_table(main_table(comparison))),
        section("Differences", figure(_forest(comparison), "differences with intervals")),
        section("Cost", _text_table(cost_table(comparison))),
        section("By size of the objects", _text_table(main_table(comparison, ("size",)))),
        section("By class", _text_table(main_table(comparison, ("class",)))),
        section(
            "Where they differ most",
            paragraph(
                f"Detections with a score of {score_thr:g} or more; {LEGEND}." if _has_objects(comparison) else ""
            )
            if pictures
            else "",
            gallery(pictures, "wide"),
        ),
        section("How to read it", paragraph(_METHOD)),
    ]
    environment = ", ".join(f"{key} {value}" for key, value in comparison.environment.items())
    return write_page(path, page(title, lead, body, f"Measured on: {environment}" if environment else ""))


def _has_objects(comparison: Comparison) -> bool:
    return any(row.part != "label maps" for row in comparison.rows)


def _verdict(sentence: str) -> str:
    verdict, _, figures = sentence.partition(":")
    return f"<p><b>{html.escape(verdict)}</b>:{html.escape(figures)}.</p>"


def _cards(comparison: Comparison) -> dict[str, str]:
    mains = [row for row in comparison.rows if row.group == "main"]
    return {
        f"{row.name} of {row.part}, {model.name}": f"{value.value:.2f}"
        for row in mains
        for model, value in zip(comparison.models, row.values)
    }


def _text_table(rows: Sequence[Mapping[str, str]]) -> str:
    return table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def _forest(comparison: Comparison) -> str:
    """All differences with their intervals, as a picture: a row for each metric."""
    from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if not all(math.isnan(x.value) for x in row.differences)]
    others = comparison.models[1:]
    several = len({row.part for row in rows}) > 1
    drawn = Figure(figsize=(9, 0.9 + 0.26 * len(rows) * max(1.0, 0.6 * len(others))), layout="constrained")
    axes = drawn.subplots()
    axes.axvline(0, color=FIGURE_COLOR, linewidth=1)
    for k, model in enumerate(others):
        places = [i + (k - (len(others) - 1) / 2) * 0.6 / len(others) for i in range(len(rows))]
        differences = [row.differences[k] for row in rows]
        values = [x.value for x in differences]
        errors = [[x.value - x.low for x in differences], [x.high - x.value for x in differences]]
        axes.errorbar(
            values,
            places,
            xerr=[[max(0.0, e) for e in side] for side in errors],
            fmt="o",
            markersize=4,
            label=figure_text(model.name),
        )
    labels = [f"{row.part}: {row.name}" if several else row.name for row in rows]
    axes.set_yticks(range(len(rows)), [figure_text(label) for label in labels])
    axes.invert_yaxis()
    axes.set_xlabel(f"points higher (right) or lower (left) than {figure_text(comparison.models[0].name)}")
    axes.grid(axis="x", alpha=0.3)
    if len(others) > 1:
        axes.legend(fontsize=8)
    return figure_uri(drawn)
