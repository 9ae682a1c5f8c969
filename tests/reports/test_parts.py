"""Figures of a report as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efftasks.reports.parts import write_figures


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tables_of_an_older_report_are_removed_and_no_other_files(tmp_path: Path) -> None:
    write_figures(tmp_path, {"a": float("nan")}, {"boxes": (("x",), [[1.5]]), "masks": (("x",), [])})
    (tmp_path / "mine.csv").write_text("1\n")
    assert names(tmp_path) == ["boxes.csv", "masks.csv", "mine.csv", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": None, "tables": ["boxes", "masks"]}
    write_figures(tmp_path, {}, {"boxes": (("x",), [[2.5], [float("inf")]])})
    assert names(tmp_path) == ["boxes.csv", "mine.csv", "report.json"]
    assert (tmp_path / "boxes.csv").read_text() == 'x\n2.5\n""\n'


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"tables": 3}', '{"tables": ["../mine", 4, "mine/../../mine"]}'])
def test_a_strange_file_removes_nothing(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "mine.csv").write_text("1\n")
    (folder / "report.json").write_text(content)
    write_figures(folder, {}, {})
    assert names(tmp_path) == ["mine", "mine.csv"] and names(folder) == ["report.json"]
