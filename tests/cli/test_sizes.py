"""``--sizes`` of predict and test: what is written, and wrong values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.cli.main import main


@pytest.fixture
def model(write_sized: Callable[..., Path], tmp_path: Path) -> str:
    return str(write_sized(tmp_path / "model.onnx"))


def test_predict_chooses_a_size_for_each_image(model: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, blue in (("decided", 255), ("undecided", 128)):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), np.full((128, 128, 3), (blue, 0, 0), np.uint8))
    words = ["predict", model, str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--sizes", "32", "64"]
    assert main([*words, "--score-thr", "0.3"]) == 0
    first, second = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    # Boxes of 16 pixels of the network input: of 32 pixels they are 64 of the image, of 64 pixels 32.
    assert first["bbox"] == [0, 0, 64, 64] and second["bbox"] == [0, 0, 32, 32]
    assert main([*words, "--size-threshold", "1"]) == 0
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    assert [row["bbox"] for row in written] == [[0, 0, 64, 64]] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "32"], "--sizes: got 1 of them"),
        (["--sizes", "32", "64", "--tiles"], "--tiles: got it with --sizes, expected one of them"),
        (["--sizes", "32", "64", "--key-frames"], "--key-frames: got it with --sizes, expected one of them"),
        (["--sizes", "32", "64", "--exit-threshold", "0"], "--exit-threshold: got it with --sizes, expected one"),
        (["--sizes", "32", "40"], "--sizes: got 40x40, expected multiples of 32"),
        (["--size-threshold", "0.5"], "--size-threshold: got [0.5] without --sizes"),
        (["--size-rule", "rule.json"], "--size-rule: got 'rule.json' without --sizes"),
        (["--sizes", "32", "64", "--size-rule", "rule.json"], "rule.json: cannot be read"),
        (["--sizes", "32", "64", "--size-threshold", "2"], "size threshold: got 2.0"),
    ],
)
def test_wrong_values_of_predict(model: str, words: list[str], message: str, tmp_path: Path, capsys) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    assert main(["predict", model, str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_wrong_values_of_test(model: str, capsys) -> None:
    config = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
    for words, message in (
        ([model, "--fit-sizes", "a.json"], "--fit-sizes: got 'a.json' without --sizes"),
        ([model, "--sizes", "32", "64", "--show-dir", "out"], "--show-dir: got it with --sizes"),
        ([model, "--sizes", "32", "64", "--fit-sizes", "a", "--size-rule", "b"], "expected one of them"),
        ([model, "--sizes", "32", "64", "--tiles"], "--tiles: got it with --sizes, expected one of them"),
        ([model, "--sizes", "32", "64", "--exit-thresholds", "0"], "--exit-thresholds: got it with --sizes"),
        (["best.pth", "--sizes", "32", "64"], "got a checkpoint, best.pth, expected an exported file"),
    ):
        assert main(["test", config, *words, "--cfg-options", "classes=blue,green,red"]) == 2
        assert message in capsys.readouterr().err
