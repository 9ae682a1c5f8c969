"""Rows of measurements as Markdown, JSON and CSV; each carries its environment."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Footnotes", "to_markdown", "write_report"]


class Footnotes:
    """Reasons below a table, each once; as text, a numbered list."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str, reason: str | None) -> str:
        """A cell with the number of its reason, if it has one."""
        if reason is None:
            return text
        return f"{text} ({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def __str__(self) -> str:
        return "\n".join(f"{number}. {reason}" for reason, number in self._numbers.items())


def to_markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table; numbers with three significant digits, what a row lacks as a dash."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def write_report(
    stem: str | Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    environment: Mapping[str, str],
    text: str | None = None,
) -> tuple[Path, Path, Path]:
    """Write ``<stem>.md``, ``<stem>.json`` and ``<stem>.csv``; every row of the last two has the environment.

    Args:
        stem: of the paths.
        rows: of the table.
        columns: of the table.
        environment: what it was measured on.
        text: the table as Markdown, where it is not that of :func:`to_markdown`.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(f"- {key}: {value}" for key, value in environment.items())
    markdown, data, sheet = (Path(f"{stem}{suffix}") for suffix in (".md", ".json", ".csv"))
    markdown.write_text(f"{text or to_markdown(rows, columns)}\n\nMeasured on:\n\n{listed}\n", encoding="utf-8")
    full = [{**row, "environment": dict(environment)} for row in rows]
    data.write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *environment], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **environment} for row in rows)
    return markdown, data, sheet
