"""Docstrings: every public thing has one, and the examples in them run."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "efftasks").rglob("*.py"))
RUNNABLE = [file for file in FILES if file.name != "__main__.py"]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", RUNNABLE, ids=module_name)
def test_examples_run(file: Path) -> None:
    if ">>>" not in file.read_text(encoding="utf-8"):
        importlib.import_module(module_name(file))  # nothing to run, but it must import on its own extras
        return
    result = doctest.testmod(
        importlib.import_module(module_name(file)), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert result.attempted > 0, "the examples are not where doctest finds them"
    assert result.failed == 0


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_public_things_are_documented(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module says what it is for"
    missing = []
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        missing += [] if ast.get_docstring(node) else [node.name]
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            missing += [
                f"{node.name}.{method.name}"
                for method in methods
                if not method.name.startswith("_") and method.name != "extra_repr" and not ast.get_docstring(method)
            ]
    assert not missing


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_all_names_what_exists(file: Path) -> None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            module = importlib.import_module(module_name(file))
            names = module.__all__
            assert len(set(names)) == len(names)
            assert all(getattr(module, name) is not None for name in names)
