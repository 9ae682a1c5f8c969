"""An exported file on another machine: an environment with numpy, OpenCV and the runtime alone, and nothing beside."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import Predictor
from efftasks.apis.formats import suffix_of
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.onnx import export_onnx
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.backends.table import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("efftasks", "configs", "tools", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")
ABSENT = ("torch", "mmengine", "mmcv", "mmdet", "onnx", "PIL", "tqdm", "matplotlib", "scipy", "pycocotools")
CODE = """
import importlib.util, json, sys
import efftasks
from efftasks import Predictor
absent, file, picture = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
(found,) = Predictor(file)(picture)
print(json.dumps(dict(
    package=efftasks.__file__,
    imported=[name for name in absent if name in sys.modules],
    importable=[name for name in absent if importlib.util.find_spec(name) is not None],
    boxes=found.boxes.tolist(), scores=found.scores.tolist(), labels=found.labels.tolist(),
)))
"""


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that sees nothing of this environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment)


def make_environment(folder: Path, runtime: str) -> Path:
    """Folder of the programs of a new environment with efftasks; the test is skipped where pip has no packages."""
    assert run([sys.executable, "-m", "venv", str(folder / "venv")], folder).returncode == 0
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    packages = ["numpy", "opencv-python-headless", runtime, "setuptools>=77"]
    constraints = str(ROOT / "requirements" / "constraints.txt")
    done = run([*pip, *packages, "--constraint", constraints], folder)
    if done.returncode:
        pytest.skip(f"pip cannot install {runtime}: {done.stderr.strip().splitlines()[-1]}")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    done = run([*pip, "--no-deps", "--no-build-isolation", str(folder / "source")], folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "source")
    return programs


def write_artifact(exporter: Exporter, detector: Any, outside_detector: Any, folder: Path) -> Path:
    """Its files; with a sidecar only where the format has no room for a description."""
    model, spec = detector
    if exporter.undecoded:
        model, spec = outside_detector
    if exporter.fixed_size:
        spec = replace(spec, input=replace(spec.input, dynamic_batch=False))
    spec = replace(spec, backend=exporter.name, precision=exporter.precisions[0])
    path = exporter.export(model, spec, folder / f"there{suffix_of(exporter)}", opset=18)
    if BACKENDS[exporter.backend].open(path).metadata is None:
        spec.save(path.with_suffix(".json"))
    return path


def test_the_command_needs_none_of_them(detector, tmp_path):
    model, spec = detector
    path = export_onnx(model, spec, tmp_path / "model.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    code = (
        f"import sys\nfor name in {ABSENT!r}: sys.modules[name] = None\n"
        "from efftasks.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "predict", str(path), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "exporter",
    [x for x in EXPORTERS.values() if x.page is None and BACKENDS[x.backend].module != "torch"],
    ids=lambda exporter: exporter.name,
)
def test_the_files_are_enough(exporter, detector, outside_detector, real_data, tmp_path):
    if not exporter.available:
        pytest.skip(f"needs {exporter.missing}")
    backend = BACKENDS[exporter.backend]
    (tmp_path / "made").mkdir()
    made = write_artifact(exporter, detector, outside_detector, tmp_path / "made")
    there = tmp_path / "elsewhere"
    there.mkdir()
    for part in made.parent.iterdir():
        shutil.copy(part, there)
    if exporter.name == "onnx":
        assert [part.name for part in there.iterdir()] == [made.name]  # one file, no sidecar
    shutil.copy(next(iter(sorted((real_data / "photos").rglob("*.jpg")))), there / "photo.jpg")
    programs = make_environment(tmp_path, backend.module)

    (expected,) = Predictor(made)(there / "photo.jpg")
    words = [str(programs / "python"), "-c", CODE, json.dumps(ABSENT), made.name, "photo.jpg"]
    done = run(words, there)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["package"]).is_relative_to(tmp_path / "venv")
    needed = {re.split(r"[^\w-]", text)[0].lower() for text in importlib.metadata.requires(backend.module) or ()}
    assert found["imported"] == [] and {name.lower() for name in found["importable"]} <= needed
    assert len(found["boxes"]) == len(expected) > 20
    assert found["labels"] == expected.labels.tolist()
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.01)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-4)

    done = run([str(programs / "efftasks"), "predict", made.name, "photo.jpg", "--out", "out"], there)
    assert done.returncode == 0, done.stderr
    written = json.loads((there / "out" / "predictions.json").read_text())
    shown = expected.filter(0.3)
    assert len(written["annotations"]) == len(shown) > 0
    np.testing.assert_allclose([row["score"] for row in written["annotations"]], shown.scores, atol=1e-4)
    assert (there / "out" / "photo.jpg").exists()
