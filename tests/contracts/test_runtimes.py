"""Runtimes and exporters are known from their two tables: no other file names one, its suffix or its extra."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import efftasks.compat  # noqa: F401

import pytest

# isort: split
from mmengine.registry import DefaultScope

from efftasks.apis.building import build
from efftasks.apis.forms import head_of
from efftasks.apis.listing import exporters_table, families_table
from efftasks.cli.main import main
from efftasks.config import load_config
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.families import FAMILIES, Family
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "efftasks"
OWNERS = (PACKAGE / "runtime" / "backends", PACKAGE / "export" / "exporters")
# Words that mean something else there: the default of a field in old descriptions, other tools' files.
ELSEWHERE = {
    ("structures/spec.py", "onnx"),
    ("datasets/convert_voc.py", ".xml"),
    ("structures/suffixes.py", ".bin"),  # of a checkpoint
    ("cli/export.py", "onnx"),  # the labeling tool reads ONNX files alone
    ("export/x_anylabeling.py", "onnx"),
    ("export/x_anylabeling.py", ".onnx"),
    ("zoo/cache.py", "model.onnx"),  # what the cache has for predicting
}
WORDS = {
    *BACKENDS,
    *EXPORTERS,
    *(suffix for backend in BACKENDS.values() for suffix in backend.files),
    *({backend.module for backend in BACKENDS.values()} - {"torch"}),  # much else is of PyTorch
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
    extras = set(re.findall(r"^([\w-]+) = \[", section.split("[project.scripts]")[0], re.MULTILINE))
    named = {backend.extra for backend in BACKENDS.values()} | {exporter.extra for exporter in EXPORTERS.values()}
    assert named - {None} <= extras


def test_the_docs_have_the_tables_of_exporters_and_families():
    text = (ROOT / "docs" / "runtimes" / "README.md").read_text(encoding="utf-8")
    assert exporters_table() in text and families_table() in text


def test_the_command_prints_these_tables(capsys):
    with pytest.raises(SystemExit) as end:
        main(["export", "--list"])
    printed = capsys.readouterr().out
    assert end.value.code == 0 and exporters_table() in printed and families_table() in printed


def test_every_folder_of_configs_is_a_family():
    folders = {file.parent for file in (ROOT / "configs").glob("*/*/metafile.yml")}
    assert set(FAMILIES) == {folder.name for folder in folders if folder.parent.name != "compress"}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_what_is_stated_of_a_family(family: Family):
    cfg = load_config(family.config, family.without_data)
    assert head_of(cfg) == family.head
    with DefaultScope.overwrite_default_scope("efftasks"):
        assert family.config.startswith(family.name) and build(cfg).task == family.task


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=lambda exporter: exporter.name)
def test_what_the_table_refuses_is_refused(exporter: Exporter):
    """A model is known by its head and task: families that share both are refused together or not at all."""
    assert set(exporter.refuses) <= set(FAMILIES)
    for family in FAMILIES.values():
        reason = exporter.refuses.get(family.name)
        with (
            nullcontext()
            if reason is None
            else pytest.raises(UserError, match=f"--backend {exporter.name}: .*{reason}")
        ):
            exporter.check_model(family.head, family.task)
    exporter.check_model("MyHead", "detection")


def test_the_docs_name_every_runtime_and_its_files():
    rows = {
        cells[1].strip(" `"): cells[2]
        for line in (ROOT / "docs" / "export.md").read_text(encoding="utf-8").splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
    }
    for backend in BACKENDS.values():
        assert all(f"`{suffix}`" in rows[backend.name] for suffix in (*backend.files, *backend.also_reads))
