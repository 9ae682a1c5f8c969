"""The files of the page: all are there, they fit one another, and nothing comes from elsewhere."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from efftasks.export.page.writing import ASSETS, write_folder, write_single_file
from efftasks.structures.spec import ArtifactFile, ArtifactSpec, InputSpec, OutputSpec

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted((ASSETS / "js").glob("*.js"))
RUNTIME = {"ort.mjs": b"export {};", "ort.wasm": b"\0asm" * 50}


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name, content in RUNTIME.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, ArtifactSpec]:
    """A folder with a file and its sidecar."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"network")
    spec = ArtifactSpec(
        task="detection",
        classes=("</script> is a strange name",),
        category_ids=(1,),
        input=InputSpec("images", 64, 64, mean=(0, 0, 0), std=(255, 255, 255)),
        outputs=(OutputSpec("boxes", (1, 4), "float32", ""),),
    )
    spec = replace(spec, files=(ArtifactFile.of(folder / "model.onnx"),))
    spec.save(folder / "model.json")
    return folder, spec


def test_the_folder_has_all_that_the_page_names(exported, runtime):
    folder, _ = exported
    page = write_folder(folder, runtime, tuple(RUNTIME))
    names = re.findall(r'(?:src|href)="([^"]+)"', page.read_text(encoding="utf-8"))
    assert {"style.css", "js/app.js"} <= set(names)
    assert all(name == "data:," or (folder / name).is_file() for name in names)
    for module in (folder / "js").glob("*.js"):
        for imported in re.findall(r'from "\./([^"]+)"', module.read_text(encoding="utf-8")):
            assert (folder / "js" / imported).is_file(), f"{module.name} imports {imported}"
    assert {path.name: path.read_bytes() for path in (folder / "ort").iterdir() if path.name in RUNTIME} == RUNTIME
    assert "Copyright (c) Microsoft Corporation" in (folder / "ort" / "LICENSE.txt").read_text(encoding="utf-8")


def test_writing_again_replaces_what_is_there(exported, runtime):
    folder, _ = exported
    write_folder(folder, runtime, tuple(RUNTIME))
    (folder / "js" / "app.js").write_text("older")
    page = write_folder(folder, runtime, tuple(RUNTIME))
    assert page == folder / "index.html"
    assert (folder / "js" / "app.js").read_bytes() == (ASSETS / "js" / "app.js").read_bytes()


def test_a_single_file_has_everything_inside(exported, runtime):
    folder, spec = exported
    text = write_single_file(folder, spec, runtime, tuple(RUNTIME)).read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]+)"', text) == ["data:,"]
    packed = dict(re.findall(r'<script type="application/gzip" id="file:([^"]+)">([^<]*)</script>', text))
    unpacked = {name: gzip.decompress(base64.b64decode(content)) for name, content in packed.items()}
    assert unpacked == {
        "model.json": (folder / "model.json").read_bytes(),
        "model.onnx": b"network",
        "ort/ort.mjs": RUNTIME["ort.mjs"],
        "ort/ort.wasm": RUNTIME["ort.wasm"],
    }
    assert "Copyright (c) Microsoft Corporation" in text and "http.server" not in text
    scripts = re.findall(r'<script type="text/module" id="([^"]+)">\n(.*?)</script>', text, re.DOTALL)
    order = [name for name, _ in scripts]
    assert set(order) == {module.name for module in MODULES} - {"opened_as_file.js"}
    for k, (name, code) in enumerate(scripts):
        assert code == (ASSETS / "js" / name).read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./([^"]+)"', code)) <= set(order[:k]), f"{name} before what it imports"


def test_the_code_names_elements_that_are_there():
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r' id="([^"]+)"', page))
    code = "".join(module.read_text(encoding="utf-8") for module in MODULES)
    named = set(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', code))
    assert named and named <= ids
    assert set(re.findall(r' for="([^"]+)"', page)) <= ids


@pytest.mark.parametrize("path", [p for p in sorted(ASSETS.rglob("*")) if p.is_file()], ids=lambda path: path.name)
def test_nothing_is_read_from_elsewhere_or_too_long(path):
    text = path.read_text(encoding="utf-8")
    elsewhere = re.findall(r"(?:https?:)?//(?!localhost)[\w-]+\.[\w.-]+", text)
    assert not elsewhere or path.name == "LICENSE.txt"
    assert len(text.splitlines()) <= 250


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_the_code_is_javascript(module, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    copy = tmp_path / f"{module.stem}.mjs"  # node takes .js for a script of its own kind
    shutil.copyfile(module, copy)
    done = subprocess.run([node, "--check", str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_has_all_files(tmp_path):
    """Built from a copy, as setuptools writes beside the sources."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copyfile(ROOT / name, source / name)
    shutil.copytree(ROOT / "efftasks" / "export", source / "efftasks" / "export", ignore=ignored)
    shutil.copyfile(ROOT / "efftasks" / "__init__.py", source / "efftasks" / "__init__.py")
    for name in ("configs", "tools"):
        (source / name).mkdir()
    command = ["setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "build")]
    done = subprocess.run([sys.executable, *command], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "build" / "efftasks" / "export" / "page" / "assets"
    names = {path.relative_to(ASSETS) for path in ASSETS.rglob("*") if path.is_file()}
    assert names == {path.relative_to(built) for path in built.rglob("*") if path.is_file()}
