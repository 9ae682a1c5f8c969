"""The parts of an HTML page, as text. All texts are escaped.

With pictures as data URIs (:func:`data_uri`, :func:`figure_uri`) a page is one file that opens without a network.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURE_COLOR",
    "Picture",
    "cards",
    "data_uri",
    "figure",
    "figure_text",
    "figure_uri",
    "gallery",
    "page",
    "paragraph",
    "preformatted",
    "section",
    "table",
    "write_page",
]

FIGURE_COLOR = "#7f7f7f"  # of text and axes: it can be read on white and on black

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.4rem 0 .5rem; }
.lead, .note, figcaption, footer { color: var(--dim); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0; } nav a { color: inherit; }
table { border-collapse: collapse; display: block; overflow-x: auto; max-height: 36rem; overflow-y: auto; }
td, th { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr { border-bottom: 1px solid var(--line); }
table.sortable th { cursor: pointer; } table.sortable th:hover { text-decoration: underline; }
th[data-order="up"]::after { content: " \\2191"; } th[data-order="down"]::after { content: " \\2193"; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; }
.card b { display: block; font-size: 1.5rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1rem; }
.pictures.small { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .7rem; }
.pictures.wide { grid-template-columns: 1fr; }
figure { margin: 0; } img { max-width: 100%; border-radius: 4px; image-rendering: auto; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.pictures img { width: 100%; } .pictures.wide img { width: auto; }
pre { overflow-x: auto; background: #8881; padding: .7rem; border-radius: 6px; }
"""

# A click on the heading of a column sorts the rows: numbers by value, from the largest first; the rest as text.
_SCRIPT = """
for (const head of document.querySelectorAll("table.sortable th")) head.addEventListener("click", () => {
  const table = head.closest("table"), column = [...head.parentNode.children].indexOf(head);
  const first = head.classList.contains("number") ? "down" : "up", other = first == "up" ? "down" : "up";
  const order = head.dataset.order == first ? other : first;
  for (const each of head.parentNode.children) delete each.dataset.order;
  head.dataset.order = order;
  const value = row => row.children[column].dataset.value ?? row.children[column].textContent;
  const number = row => value(row) === "" ? -Infinity : Number(value(row));
  const compare = head.classList.contains("number")
    ? (a, b) => number(a) - number(b) || 0 : (a, b) => value(a).localeCompare(value(b));
  const rows = [...table.rows].slice(1).sort((a, b) => (order == "up" ? 1 : -1) * compare(a, b));
  for (const row of rows) row.parentNode.append(row);
});
"""


class Picture(NamedTuple):
    """A picture of a gallery.

    Attributes:
        source: a data URI, or a path relative to the page.
        caption: below it.
    """

    source: str
    caption: str


def page(title: str, lead: str, body: Iterable[str], footer: str = "", contents: bool = False) -> str:
    """A page as text.

    Args:
        title: heading.
        lead: one sentence below it.
        body: its parts, in order.
        footer: the last line, as text.
        contents: list links to the sections at the top.
    """
    text = "\n".join(part for part in body if part)
    links = "".join(
        f'<a href="#{key}">{name}</a>' for key, name in re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', text) if contents
    )
    navigation = f"<nav>{links}</nav>\n" if links else ""
    script = f"<script>{_SCRIPT}</script>" if 'class="sortable"' in text else ""
    last = f"<footer><p>{html.escape(footer)}</p></footer>\n" if footer else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>
{navigation}{text}
{last}{script}</body></html>
"""


def write_page(path: str | Path, text: str) -> Path:
    """Write a page.

    Args:
        path: of the file; its folder must exist.
        text: from :func:`page`.
    """
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


def section(heading: str, *parts: str) -> str:
    """Parts below a heading; empty if all of them are empty."""
    key = re.sub(r"\W+", "-", heading.lower()).strip("-")
    shown = [part for part in parts if part]
    return f'<h2 id="{key}">{html.escape(heading)}</h2>\n' + "\n".join(shown) if shown else ""


def paragraph(text: str, heading: str = "") -> str:
    """A note, with a smaller heading above it if one is given."""
    above = f"<h3>{html.escape(heading)}</h3>" if heading else ""
    return above + (f'<p class="note">{html.escape(text)}</p>' if text else "")


def preformatted(text: str) -> str:
    """Text in a fixed-width font; empty for no text."""
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def cards(values: Mapping[str, str]) -> str:
    """The figures to see first: label -> short value."""
    parts = (
        f'<div class="card">{html.escape(label)}<b>{html.escape(value)}</b></div>' for label, value in values.items()
    )
    return f'<div class="cards">{"".join(parts)}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], sortable: bool = False) -> str:
    """A table; floats have four digits, NaN and None are empty.

    Args:
        columns: headings.
        rows: cells of each row.
        sortable: sort by a column when its heading is clicked.
    """
    is_number = [
        any(isinstance(row[i], (int, float)) for row in rows)
        and all(row[i] is None or isinstance(row[i], (int, float)) for row in rows)
        for i in range(len(columns))
    ]
    head = "".join(
        f"<th{' class=' + chr(34) + 'number' + chr(34) if number else ''}>{html.escape(column)}</th>"
        for column, number in zip(columns, is_number)
    )
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return f"<table{kind}><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td class="number" data-value=""></td>'
    if isinstance(value, float):
        return f'<td class="number" data-value="{float(value)!r}">{value:.4g}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def figure(source: str, name: str, caption: str = "") -> str:
    """A picture in the width of the page.

    Args:
        source: a data URI, or a path relative to the page.
        name: what it shows, for those who cannot see it.
        caption: below it.
    """
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{html.escape(source)}" alt="{html.escape(name)}">{below}</figure>'


def gallery(pictures: Sequence[Picture], size: str = "") -> str:
    """Pictures in a grid; empty for none.

    Args:
        pictures: in order.
        size: ``small`` for crops, ``wide`` for one in a row.
    """
    parts = (
        f'<figure><img src="{html.escape(picture.source)}" alt="{html.escape(picture.caption)}" loading="lazy">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    name = " ".join(["pictures", *([size] if size else [])])
    return f'<div class="{name}">{"".join(parts)}</div>' if pictures else ""


def data_uri(data: bytes, kind: str) -> str:
    """A file as a data URI.

    Args:
        data: its bytes.
        kind: its media type, such as ``image/jpeg``.
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def figure_text(name: str) -> str:
    """A name as matplotlib draws it as it is: no formula, and not left out of legends like those with a first ``_``."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def figure_uri(drawn: Figure) -> str:
    """A matplotlib figure as an SVG data URI: without a background, in colors that suit light and dark pages.

    Texts, ticks and frames of its axes are colored; lines and areas are as they were drawn.
    """
    import matplotlib

    drawn.patch.set_alpha(0)
    for axes in drawn.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=FIGURE_COLOR, which="both")
        for spine in axes.spines.values():
            spine.set_color(FIGURE_COLOR)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(FIGURE_COLOR)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_alpha(0)
            for text in legend.get_texts():
                text.set_color(FIGURE_COLOR)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "efftasks"}):  # the same figure is the same text
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")
