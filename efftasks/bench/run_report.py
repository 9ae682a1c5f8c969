"""A page about one run: curves, pictures, figures. Plain HTML with pictures beside it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["RunReport", "draw_curves", "in_points", "read_scalars", "write_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.lead, figcaption, footer { color: var(--dim); }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr { border-bottom: 1px solid var(--line); }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; }
.card b { display: block; font-size: 1.5rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1rem; }
figure { margin: 0; } img { max-width: 100%; border-radius: 4px; image-rendering: auto; }
.pictures img { width: 100%; } pre { overflow-x: auto; background: #8881; padding: .7rem; border-radius: 6px; }
"""


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
    text = html.escape
    cards = "".join(
        f'<div class="card">{text(label)}<b>{text(value)}</b></div>' for label, value in report.cards.items()
    )
    tables = "".join(
        f"<h2>{text(heading)}</h2>{_table(columns, rows)}" for heading, (columns, rows) in report.tables.items()
    )
    pictures = "".join(
        f'<figure><img src="{text(name)}" alt="{text(Path(name).stem)}" loading="lazy">'
        f"<figcaption>{text(Path(name).stem)}</figcaption></figure>"
        for name in report.pictures
    )
    figures = "".join(_figure(heading, name) for heading, name in report.figures.items())
    more_figures = "".join(_figure(heading, name) for heading, name in report.more_figures.items())
    curves = _figure("Training", report.curves) if report.curves else ""
    heading = "<h2>Pictures: ground truth left, predictions right</h2>"
    pictures = f'{heading}<div class="pictures">{pictures}</div>' if pictures else ""
    lines = text(chr(10).join(report.commands))
    commands = f"<h2>The same, one by one</h2><pre>{lines}</pre>" if report.commands else ""
    environment = text(", ".join(f"{key} {value}" for key, value in report.environment.items()))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(report.title)}</title><style>{_STYLE}</style></head><body>
<h1>{text(report.title)}</h1><p class="lead">{text(report.lead)}</p>
<div class="cards">{cards}</div>
{figures}{curves}
{tables}
{more_figures}
{pictures}
{commands}
<footer><p>Measured on: {environment}</p></footer>
</body></html>
"""
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _figure(heading: str, name: str) -> str:
    return f'<h2>{html.escape(heading)}</h2><img src="{html.escape(name)}" alt="{html.escape(heading.lower())}">'


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    return f"<td>{html.escape(str(value))}</td>"
