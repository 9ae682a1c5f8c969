"""Pages of the API reference: the public names of each package, by mkdocstrings, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.docs.links import ROOT

# What is not called from Python: commands, and the page of the browser.
LEFT_OUT = {"efftasks.cli", "efftasks.export.page"}
FIRST = ["efftasks", "efftasks.apis", "efftasks.config", "efftasks.registry", "efftasks.runtime", "efftasks.imaging"]


def module_name(file: Path, root: Path = ROOT) -> str:
    """``efftasks/ops/topk.py`` -> ``efftasks.ops.topk``; a package for its ``__init__``."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def docstring(file: Path) -> str:
    """Of a module."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def reexported(file: Path) -> list[str]:
    """The names that a package gives on first access: those imported for type checkers."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [line for line in node.body if isinstance(line, ast.ImportFrom)]
            return [f"{line.module}.{alias.name}" for line in imports for alias in line.names]
    return []


def has_public_names(file: Path) -> bool:
    """Whether a module defines a name without an underscore."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds):
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            if any(not name.startswith("_") for name in names):
                return True
    return False


def package_page(name: str, init: Path, modules: list[Path]) -> str:
    """The page of a package: its docstring, the names that it gives itself, then its modules."""
    parts = [f"# {name}", docstring(init)]
    names = sorted(reexported(init), key=lambda full: full.rpartition(".")[2])
    inside = [full for full in names if full.startswith("efftasks.apis.")]
    elsewhere = ", ".join(f"[`{full.rpartition('.')[2]}`][{full}]" for full in names if full not in inside)
    if elsewhere:
        parts.append(f"From other packages: {elsewhere}.")
    parts += [f"::: {full}\n    options:\n      heading_level: 2" for full in inside]
    if name != "efftasks.apis":  # its modules are where its names come from
        parts += [f"::: {module_name(file)}\n    options:\n      heading_level: 2" for file in modules]
    return "\n\n".join(parts) + "\n"


def module_page(file: Path) -> str:
    """The page of a module that is in no package but efftasks."""
    return f"::: {module_name(file)}\n    options:\n      heading_level: 1\n"


def api_pages(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name of a package or module, and its page; the entry points first, then by name."""
    top = root / "efftasks"
    pages = {}
    for init in sorted(top.rglob("__init__.py")):
        name = module_name(init, root)
        modules = [file for file in sorted(init.parent.glob("*.py")) if file != init and has_public_names(file)]
        if any(name == other or name.startswith(f"{other}.") for other in LEFT_OUT) or (
            not modules and init.parent != top
        ):
            continue
        pages[name] = package_page(name, init, [] if init.parent == top else modules)
        if init.parent == top:
            pages |= {module_name(file, root): module_page(file) for file in modules if file.stem != "__main__"}
    order = sorted(pages, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    yield from ((name, pages[name]) for name in order)
