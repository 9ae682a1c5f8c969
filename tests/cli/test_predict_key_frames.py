"""``efftasks predict --key-frames``: what it writes and says, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from efftasks.cli.main import main


@pytest.fixture
def model(module_at: Callable[[Path], ModuleType], tmp_path: Path) -> str:
    """A file that finds a dog in every image."""
    path: str = module_at(Path(__file__).with_name("test_predict.py")).write_model(tmp_path / "model.onnx", {})
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Seven frames, all of the same picture."""
    folder = tmp_path / "frames"
    folder.mkdir()
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8), (64, 64))
    for i in range(7):
        cv2.imwrite(str(folder / f"{i:03d}.png"), picture)
    return folder


@pytest.mark.parametrize(
    ("options", "carried"),
    [
        (["--key-frames"], [None, 0, 0, 0, 0, 0, 0]),
        (["--key-frames", "auto", "--max-interval", "3"], [None, 0, 0, None, 3, 3, None]),
        (["--key-frames", "4"], [None, 0, 0, 0, None, 4, 4]),
        (["--key-frames", "--key-frame-threshold", "0"], [None] * 7),
    ],
)
def test_what_was_carried(model, frames, tmp_path, capsys, options, carried):
    out = tmp_path / "out"
    assert main(["predict", model, str(frames), "--out", str(out), "--csv", "--no-draw", *options]) == 0
    assert f"key frames: {carried.count(None)} of 7 frames" in capsys.readouterr().out
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [image.get("carried_from") for image in images] == carried
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["carried_from"] for row in rows] == ["" if key is None else str(key) for key in carried]
    assert len({(row["x1"], row["y2"]) for row in rows}) == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--key-frames", "often"], "--key-frames: got 'often', expected 'auto' or an integer from 1"),
        (["--key-frames", "0"], "--key-frames: got '0'"),
        (["--key-frames", "--batch-size", "4"], "--batch-size: got 4, expected 1 with --key-frames"),
        (["--key-frames", "--tiles"], "--key-frames: got it with --tiles, expected one of them"),
        (["--max-interval", "4"], "--max-interval: got it without --key-frames auto"),
        (["--key-frames", "4", "--key-frame-threshold", "1"], "--key-frame-threshold: got it without"),
        (["--key-frames", "--max-interval", "0"], "max_interval: got 0, expected an integer from 1"),
        (["--key-frames", "--key-frame-threshold", "nan"], "threshold: got nan, expected a number from 0"),
    ],
)
def test_wrong_options(model, frames, tmp_path, capsys, options, problem):
    assert main(["predict", model, str(frames), "--out", str(tmp_path / "out"), *options]) == 2
    assert problem in capsys.readouterr().err


def test_images_that_are_no_sequence(model, frames, tmp_path, capsys):
    (frames / "portrait.png").write_bytes((frames / "000.png").read_bytes())
    assert main(["predict", model, str(frames), "--out", str(tmp_path / "out"), "--key-frames"]) == 2
    assert "expected frames in order, such as frame_0001.jpg" in capsys.readouterr().err
