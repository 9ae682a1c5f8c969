"""A page about one run: curves, pictures, figures. Plain HTML with pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efftasks.reports import page

__all__ = ["RunReport", "draw_curves", "in_points", "read_scalars", "write_page"]

_QUALITIES = {  # metrics to draw: name, and the most it can be
    "coco/bbox_mAP": ("AP", 1.0),
    "coco/bbox_mAP_50": ("AP50", 1.0),
    "coco/bbox_mAP_75": ("AP75", 1.0),
    "coco/segm_mAP": ("mask AP", 1.0),
    "coco/segm_mAP_50": ("mask AP50", 1.0),
    "coco/keypoints_mAP": ("keypoint AP", 1.0),
    "coco/keypoints_mAP_50": ("keypoint AP50", 1.0),
    "mIoU": ("mIoU", 100.0),
    "aAcc": ("pixels right", 100.0),
}


@dataclass(frozen=True)
class RunReport:
    """What the page shows.

    Attributes:
        title: heading.
        lead: one sentence below it.
        cards: label -> short value, the figures to see first.
        tables: heading -> (columns, rows).
        curves: picture of the training curves, relative to the page; empty for none.
        pictures: pictures, ground truth left and predictions right, relative to the page.
        commands: the commands that do the same one by one.
        figures: heading -> another picture, relative to the page, before the tables.
        more_figures: the same, after the tables.
        environment: what it was measured on.
    """

    title: str
    lead: str
    cards: Mapping[str, str]
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
    curves: str = ""
    pictures: Sequence[str] = ()
    commands: Sequence[str] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    more_figures: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def in_points(metric: str) -> tuple[str, float]:
    """The short name of a metric, and the factor that makes its values points of 100."""
    name, most = _QUALITIES.get(metric, (metric, 1.0))
    return name, 100 / most


def read_scalars(work_dir: str | Path) -> list[dict[str, Any]]:
    """The scalars of the newest run in a work dir, one dict a line of the log."""
    files = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not files:
        return []
    lines = files[-1].read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def draw_curves(scalars: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Losses and learning rate over epochs, and the metrics over epochs, as one SVG."""
    from matplotlib.figure import Figure

    train = [row for row in scalars if "loss" in row]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, rate, quality = figure.subplots(1, 3)
    last = max((int(row["epoch"]) for row in train), default=1)
    position = [(i + 1) / len(train) * last for i in range(len(train))]
    for key in sorted({key for row in train for key in row if key.rpartition(".")[2].startswith("loss")}):
        loss.plot(position, [row.get(key) for row in train], label=key.replace("loss_", ""), linewidth=1.2)
    loss.set(title="training loss", xlabel="epoch", yscale="log")
    loss.legend(fontsize=7)
    rate.plot(position, [row.get("base_lr", row.get("lr")) for row in train], color="tab:gray")
    rate.set(title="learning rate (AdamW's)", xlabel="epoch")
    most = 1.0
    for key, (name, limit) in _QUALITIES.items():
        tests = [row for row in scalars if key in row]
        if tests:
            quality.plot([row["step"] for row in tests], [row[key] for row in tests], marker="o", label=name)
            most = limit
    quality.set(title="validation", xlabel="epoch", ylim=(0, most))
    quality.legend(fontsize=8)
    for axes in (loss, rate, quality):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def write_page(report: RunReport, path: str | Path) -> Path:
    """Write the page; everything shown is escaped."""
    environment = ", ".join(f"{key} {value}" for key, value in report.environment.items())
    pictures = [page.Picture(name, Path(name).stem) for name in report.pictures]
    training = {"Training": report.curves} if report.curves else {}
    body = [
        page.cards(report.cards),
        *_figures({**report.figures, **training}),
        *(page.section(heading, page.table(columns, rows)) for heading, (columns, rows) in report.tables.items()),
        *_figures(report.more_figures),
        page.section("Pictures: ground truth left, predictions right", page.gallery(pictures)),
        page.section("The same, one by one", page.preformatted("\n".join(report.commands))),
    ]
    return page.write_page(path, page.page(report.title, report.lead, body, f"Measured on: {environment}"))


def _figures(figures: Mapping[str, str]) -> list[str]:
    return [page.section(heading, page.figure(source, heading.lower())) for heading, source in figures.items()]
