"""Memory does not grow with the number of images, nor with what is read ahead of a slow caller."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.structures.spec import ArtifactSpec

ROOT = Path(__file__).resolve().parents[2]
# Prints the resident memory in MB when so many images have been written.
COMMAND = """
import sys
from efftasks.cli.main import main
from efftasks.runtime.outputs import CocoWriter

add, marks = CocoWriter.add, [int(mark) for mark in sys.argv[1].split(",")]
count = 0

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

def watched(self, name, prediction):
    global count
    add(self, name, prediction)
    count += 1
    if count in marks:
        print("RSS", resident())

CocoWriter.add = watched
sys.exit(main(sys.argv[2:]))
"""
STREAM = """
import sys
from efftasks import Predictor

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

for i, prediction in enumerate(Predictor(sys.argv[1], threads=1).stream(sys.argv[2], readers=2)):
    if i in (4, 39):
        print("RSS", resident())
"""


def resident_mb(code: str, *arguments: str) -> list[float]:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the memory of a process")
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("RSS")]


@pytest.fixture
def file(detector: tuple, tmp_path: Path) -> str:
    """A small network of fifty detections an image, exported."""
    from efftasks.export.exporters.onnx import export_onnx

    model, spec = detector
    assert isinstance(spec, ArtifactSpec)
    return str(export_onnx(model, spec, tmp_path / "model.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--no-draw", "--csv"], ["--csv"]], ids=["files", "pictures"])
def test_ten_thousand_images_need_no_more_than_a_thousand(file, tmp_path, options):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    data = [cv2.imencode(".png", random.integers(0, 256, (24, 32, 3), dtype=np.uint8))[1].tobytes() for _ in range(100)]
    for i in range(10_000):
        (tmp_path / "photos" / f"{i:05d}.png").write_bytes(data[i % 100])
    out = tmp_path / "out"
    words = ["predict", file, str(tmp_path / "photos"), "--out", str(out), "--score-thr", "0", *options]
    early, late = resident_mb(COMMAND, "1000,10000", *words)
    print(f"{early:.1f} MB after 1000 images, {late:.1f} after 10000")
    assert (out / "predictions.json").stat().st_size > 40e6  # would be 300 MB of objects
    assert (out / "predictions.csv").stat().st_size > 25e6
    assert late - early < 30


@pytest.mark.slow
def test_a_stream_of_large_images_holds_few_of_them(file, tmp_path):
    """40 images of 24 MB: what is read ahead is held as network inputs, not as images."""
    image = np.zeros((2000, 4000, 3), np.uint8)
    for i in range(40):
        cv2.imwrite(str(tmp_path / f"{i:02d}.jpg"), image)
    early, late = resident_mb(STREAM, file, str(tmp_path))
    assert late - early < 60
