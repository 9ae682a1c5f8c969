"""``efftasks predict --save-labels``: several formats of one run, and what it refuses."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from efftasks.cli.main import main
from efftasks.runtime.labels.cvat import CvatLabels
from efftasks.runtime.labels.formats import FORMATS

WRITTEN = {
    "coco": ["annotations/train.json", "images/a.jpg", "images/a_1.png"],
    "yolo": ["data.yaml", "images/train/a.jpg", "images/train/a_1.png", "labels/train/a.txt", "labels/train/a_1.txt"],
    "labelme": ["a.json", "a.jpg", "a_1.png", "a_1.json"],
    "cvat": ["annotations.xml", "images/a.jpg", "images/a_1.png", "labels.json"],
}


@pytest.fixture
def model(module_at: Callable[[Path], ModuleType], tmp_path: Path) -> str:
    """A file that finds a dog 0.9 at (8, 16) to (40, 48) in every 64 x 64 image, and a cat 0.2."""
    path: str = module_at(Path(__file__).with_name("test_predict.py")).write_model(tmp_path / "model.onnx", {})
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images of one stem."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "a.png"):
        cv2.imwrite(str(folder / name), np.full((64, 64, 3), 90, np.uint8))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_formats_at_once(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["predict", model, str(photos), "--out", str(out), "--no-draw", "--save-labels", *FORMATS]
    assert main(line) == 0
    for form in FORMATS:
        assert files(out / form) == sorted(WRITTEN[form])
    assert main(["dataset", "check", str(out / "coco/annotations/train.json")]) == 0
    assert [row["bbox"] for row in json.loads((out / "coco/annotations/train.json").read_text())["annotations"]] == [
        [8, 16, 32, 32]
    ] * 2
    for form in ("yolo", "labelme"):
        target = tmp_path / f"back_{form}"
        assert (
            main(["dataset", "convert", "--from", form, str(out / form), "--out", str(target), "--val-share", "0"]) == 0
        )
        rows = json.loads((target / "annotations/train.json").read_text())["annotations"]
        np.testing.assert_allclose([row["bbox"] for row in rows], [[8, 16, 32, 32]] * 2, atol=1e-3)
    capsys.readouterr()
    assert main(line) == 2
    assert "coco: has files already, and labels may have been corrected" in capsys.readouterr().err


def test_an_interrupt_completes_the_files(model, photos, tmp_path, monkeypatch):
    add = CvatLabels.add

    def add_one(self, name, prediction):
        if self._images:
            raise KeyboardInterrupt
        add(self, name, prediction)

    monkeypatch.setattr(CvatLabels, "add", add_one)
    out = tmp_path / "out"
    assert main(["predict", model, str(photos), "--out", str(out), "--save-labels", *FORMATS]) == 130
    assert len(ElementTree.parse(out / "cvat/annotations.xml").getroot().findall("image")) == 1
    assert len(json.loads((out / "coco/annotations/train.json").read_text())["images"]) == 2
    assert len(files(out / "labelme")) == 4


def test_frames_of_a_video(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
    for _ in range(3):
        writer.write(np.full((64, 64, 3), 90, np.uint8))
    writer.release()
    out = tmp_path / "out"
    assert main(["predict", model, str(tmp_path / "film.mp4"), "--out", str(out), "--save-labels", "labelme"]) == 0
    stems = [f"film_00000{i}" for i in range(3)]
    assert files(out / "labelme") == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".jpg", ".json"))
