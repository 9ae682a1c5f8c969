"""Runtimes and exporters are known from their two tables: no other file names one, its suffix or its extra."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.backends.table import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "efftasks"
OWNERS = (PACKAGE / "runtime" / "backends", PACKAGE / "export" / "exporters")
# Words that mean something else there: the default of a field in old descriptions, other tools' files.
ELSEWHERE = {
    ("structures/spec.py", "onnx"),
    ("datasets/convert_voc.py", ".xml"),
    ("structures/suffixes.py", ".bin"),  # of a checkpoint
}
WORDS = {
    *BACKENDS,
    *EXPORTERS,
    *(suffix for backend in BACKENDS.values() for suffix in backend.files),
    *(backend.module for backend in BACKENDS.values()),
    *(f"model{backend.suffix}" for backend in BACKENDS.values()),
}


def constants(file: Path) -> Iterator[tuple[str, int]]:
    """The texts of a file and their lines; docstrings are long, and equal no word."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def test_nothing_else_lists_runtimes():
    wrong = [
        f"{name}:{line} names {text!r}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if not any(owner in file.parents for owner in OWNERS)
        for name in [file.relative_to(PACKAGE).as_posix()]
        for text, line in constants(file)
        if text in WORDS and (name, text) not in ELSEWHERE
    ]
    assert not wrong, "read the table instead: " + "; ".join(wrong)


@pytest.mark.parametrize("folder", OWNERS, ids=lambda folder: folder.name)
def test_every_file_of_the_folder_is_in_its_table(folder: Path):
    known = {"__init__", "base", "table"}
    files = {file.stem for file in folder.glob("*.py")} - known
    table = BACKENDS if folder.name == "backends" else EXPORTERS
    assert files == set(table)


def test_their_extras_exist():
    section = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    extras = set(re.findall(r"^(\w+) = \[", section.split("[project.scripts]")[0], re.MULTILINE))
    named = {backend.extra for backend in BACKENDS.values()} | {exporter.extra for exporter in EXPORTERS.values()}
    assert named - {None} <= extras


def test_the_docs_have_the_table_of_exporters():
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    rows = [
        [re.sub(r"\(#[\w-]+\)|[`\[\]]", "", cell).strip() for cell in line.split("|")[1:-1]]
        for line in text.split("| exporter |")[1].split("\n\n")[0].splitlines()[2:]
    ]
    assert rows == [
        [
            exporter.name,
            ", ".join(BACKENDS[exporter.backend].files),
            ", ".join(exporter.precisions),
            "one image of one size" if exporter.fixed_size else "any",
            "in the runtime" if exporter.undecoded else "in the file",
        ]
        for exporter in EXPORTERS.values()
    ]


def test_the_docs_name_every_runtime_and_its_files():
    rows = {
        cells[1].strip(" `"): cells[2]
        for line in (ROOT / "docs" / "export.md").read_text(encoding="utf-8").splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
    }
    for backend in BACKENDS.values():
        assert all(f"`{suffix}`" in rows[backend.name] for suffix in (*backend.files, *backend.also_reads))
