"""The house rules that a reader cannot check by eye: who imports whom, how long things are, what is imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "efftasks"
FILES = sorted(PACKAGE.rglob("*.py"))

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 80
BANNED_FOLDERS = {"utils", "util", "misc", "common", "helpers"}
HEAVY = {
    "torch",
    "torchvision",
    "mmengine",
    "mmcv",
    "mmdet",
    "mmseg",
    "timm",
    "pycocotools",
    "faster_coco_eval",
    "onnx",
}

# The table of docs/design.md: a package and the packages of efftasks it may import. Itself is always allowed, and so
# is the version in efftasks/__init__.py, which imports nothing.
BASE: set[str] = set()
MODEL_SIDE = {"registry", "compat", "structures", "imaging", "annotations", "checkpoints", "ops", "codecs"}
MAY_IMPORT: dict[str, set[str]] = {
    "registry": BASE,
    "compat": BASE,
    "structures": BASE,
    "ops": BASE,
    "imaging": {"structures"},
    "zoo": {"structures"},
    "annotations": {"structures"},
    "checkpoints": {"structures"},
    "codecs": {"registry", "structures", "ops"},
    "datasets": MODEL_SIDE,
    "models": MODEL_SIDE | {"compression"},  # a teacher may be compressed: its plan is replayed
    "evaluation": {"registry", "structures", "ops", "imaging", "annotations"},
    "compression": {"registry", "structures", "ops"},
    "dynamic": {"registry", "structures", "ops", "compression", "models"},  # losses between widths are those of guides
    "export": {"registry", "structures", "ops", "imaging"},
    "engine": {"registry", "structures", "ops", "checkpoints", "compression"},
    "runtime": {"structures", "imaging", "zoo"},
    "reports": {"structures", "imaging", "annotations", "evaluation"},
    "bench": {"structures", "runtime", "reports"},  # the page of a run is made of the parts of all pages
    "linking": {"registry", "compat", "structures", "imaging", "datasets"},
    "config": {"registry", "compat", "structures", "datasets", "linking"},
}
MAY_IMPORT["apis"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = {"runtime"}  # the lazy Predictor

# Files of the side without PyTorch that import it in a function: their runtime takes and gives its tensors.
BUILT_ON = {PACKAGE / "runtime" / "backends" / "executorch.py": {"torch"}}

# What a person without PyTorch runs.
TORCH_FREE = [
    file
    for part in ("structures", "imaging", "annotations", "runtime", "zoo")
    for file in sorted((PACKAGE / part).rglob("*.py"))
    if file != PACKAGE / "runtime" / "backends" / "aotinductor.py"  # its runtime is PyTorch
]


def name_of(file: Path) -> str:
    """``efftasks/models/detectors.py`` -> ``efftasks.models.detectors``; a package's ``__init__`` is the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(file: Path) -> str:
    """The part of the house a file belongs to."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[tuple[str, int]]:
    """Dotted names imported anywhere below a node, relative ones resolved, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + is_package
                base = ".".join([*parts[:keep], *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def edges(file: Path) -> Iterator[tuple[str, int]]:
    """The parts of the house a file imports, with lines; its own part and the bare ``efftasks`` are left out."""
    for target, line in imports(parse(file), name_of(file), file.name == "__init__.py"):
        parts = target.split(".")
        if parts[0] == "efftasks" and len(parts) > 1 and parts[1] not in ("__version__", "Predictor", package_of(file)):
            yield parts[1], line


class WithoutTypes(ast.NodeTransformer):
    """Drops what stands under ``if TYPE_CHECKING``: it never runs."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        return self.generic_visit(node)


class WithoutFunctions(WithoutTypes):
    """Drops the bodies of functions as well: what is left runs when a module is imported."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_follow_the_table(file: Path) -> None:
    part = package_of(file)
    assert part in MAY_IMPORT, f"{part}: a new part of the house needs a row in the table (docs/design.md)"
    wrong = [f"{file}:{line} imports efftasks.{to}" for to, line in edges(file) if to not in MAY_IMPORT[part]]
    assert not wrong, f"{part} may import {sorted(MAY_IMPORT[part])}: " + "; ".join(wrong)


def test_no_cycles_between_packages() -> None:
    graph: dict[str, set[str]] = {}
    for file in FILES:
        if file != PACKAGE / "__init__.py":
            graph.setdefault(package_of(file), set()).update(to for to, _ in edges(file))

    done: set[str] = set()

    def visit(part: str, path: tuple[str, ...]) -> None:
        assert part not in path, " -> ".join([*path[path.index(part) :], part])
        if part not in done:
            for to in sorted(graph.get(part, ())):
                visit(to, (*path, part))
            done.add(part)

    for part in sorted(graph):
        visit(part, ())


def test_no_cycles_between_modules() -> None:
    """Inside of packages, too, and with the imports in functions."""
    modules = {name_of(file): file for file in FILES if file.name != "__init__.py"}
    graph = {}
    for name, file in modules.items():
        targets = {target for target, _ in imports(WithoutTypes().visit(parse(file)), name)}
        found = {target if target in modules else target.rpartition(".")[0] for target in targets}
        graph[name] = sorted((found & set(modules)) - {name})
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_no_drawer_for_everything() -> None:
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()} | {path.stem for path in FILES}
    assert not folders & BANNED_FOLDERS


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_too_long(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES_OF_A_FILE
    for node in ast.walk(parse(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_LINES_OF_A_FUNCTION, f"{node.name} at line {node.lineno} has {length} lines"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if f.name == "__init__.py" and f.parent not in (PACKAGE, PACKAGE / "apis")],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_package_inits_hold_a_docstring_at_most(file: Path) -> None:
    # Importing efftasks.structures.spec must not import what else lies in efftasks.structures.
    rest = [
        node for node in parse(file).body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    assert not rest


@pytest.mark.parametrize("part", sorted(part for part in MAY_IMPORT if (PACKAGE / part).is_dir()))
def test_package_docstrings_say_what_they_may_import(part: str) -> None:
    text = " ".join((ast.get_docstring(parse(PACKAGE / part / "__init__.py")) or "").split())
    if part in ("apis", "cli"):
        assert "May import everything" in text
        return
    allowed = ", ".join(f"`{name}`" for name in sorted(MAY_IMPORT[part])) or "nothing of efftasks"
    assert text.endswith(f"May import {allowed}.")


@pytest.mark.parametrize("file", TORCH_FREE, ids=lambda file: str(file.relative_to(ROOT)))
def test_torch_free_side_names_no_training_library(file: Path) -> None:
    imported = {target.split(".")[0] for target, _ in imports(WithoutTypes().visit(parse(file)), name_of(file))}
    assert imported & HEAVY == BUILT_ON.get(file, set())
    at_import = {target.split(".")[0] for target, _ in imports(WithoutFunctions().visit(parse(file)), name_of(file))}
    assert not at_import & HEAVY


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: file.name)
def test_commands_are_imported_cheaply(file: Path) -> None:
    targets = {target for target, _ in imports(WithoutFunctions().visit(parse(file)), name_of(file))}
    assert not {target.split(".")[0] for target in targets} - set(sys.stdlib_module_names) - {"efftasks"}
    own = {target for target in targets if target.startswith("efftasks.")}
    allowed = ("efftasks.cli", "efftasks.structures.errors", "efftasks.__version__")
    assert all(target.startswith(allowed) for target in own), own


@pytest.mark.parametrize(
    "statement",
    [
        "import efftasks",
        "from efftasks import Predictor",
        "import efftasks.cli.main; efftasks.cli.main.build_parser()",
        "import efftasks.structures.spec, efftasks.imaging.prediction, efftasks.imaging.drawing",
    ],
)
def test_import_stays_light(statement: str) -> None:
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not set(run.stdout.split()) & HEAVY


def test_light_commands_run_without_the_training_side() -> None:
    # Blocks what the base installation does not have, as a machine without efftasks[train] would.
    code = (
        "import sys\n"
        f"for name in {sorted(HEAVY)!r}: sys.modules[name] = None\n"
        "from efftasks.cli.main import main\n"
        "sys.exit(main(['train', 'whatever.py']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "pip install 'efftasks[train]'" in run.stderr
    assert "Traceback" not in run.stderr
