"""Images per second of files on disk, beside the session alone."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks.bench.rows import BenchmarkSettings
from efftasks.bench.throughput import COLUMNS, SESSION, measure_throughput, ratios
from efftasks.cli.main import main
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A label map of zeros and ones: where the first channel is above a half."""
    spec = ArtifactSpec(
        task="semantic segmentation",
        classes=("dark", "bright"),
        category_ids=(0, 1),
        input=InputSpec("images", 32, 32, mean=(0, 0, 0), std=(255, 255, 255)),
        outputs=(OutputSpec("segmentation", ("N", 32, 32), "uint8", ""),),
    )
    nodes = [
        helper.make_node("Gather", ["images", "first"], ["plane"], axis=1),
        helper.make_node("Greater", ["plane", "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["segmentation"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("segmentation", TensorProto.UINT8, ["N", 32, 32])],
        [
            onnx.numpy_helper.from_array(np.array(0), "first"),
            onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(onnx_model, {"efftasks": spec.to_json()})
    onnx.save(onnx_model, str(tmp_path / "model.onnx"))
    return str(tmp_path / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(5):
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), np.full((20, 30, 3), 50 * i, np.uint8))
    return tmp_path / "photos"


def test_ratios_are_of_the_same_round():
    """By hand: 10 images; a machine that is half as fast in the third round changes no ratio."""
    seconds = {SESSION: [1.0, 1.0, 2.0], "other": [2.0, 1.25, 4.0]}
    alone, other = ratios(seconds, 10)
    assert alone == {"what": SESSION, "images/s": 10.0, "of the session": 1.0, "least": 1.0, "most": 1.0}
    assert other == {"what": "other", "images/s": 5.0, "of the session": 0.5, "least": 0.5, "most": 0.8}


def test_the_command_measures_and_reports(model, photos, tmp_path, capsys):
    words = ["benchmark", model, "--images", str(photos), "--rounds", "2", "--out", str(tmp_path / "report")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "report.json").read_text())
    assert [row["what"] for row in rows] == [
        SESSION,
        "Predictor.stream",
        "Predictor.stream, drawn and written",
        "Predictor, image by image",
    ]
    for row in rows:
        assert row["images/s"] > 0 and 0 < row["least"] <= row["of the session"] <= row["most"]
        assert set(COLUMNS) < set(row) and row["what"] in printed and row["environment"]["onnxruntime"]
    assert rows[0]["of the session"] == 1


def test_what_cannot_be_measured(model, photos, tmp_path):
    settings = BenchmarkSettings()
    with pytest.raises(UserError, match="--rounds: got 0"):
        measure_throughput(model, photos, settings, rounds=0)
    with pytest.raises(UserError, match="none: no image found"):
        measure_throughput(model, tmp_path / "none", settings)
    with pytest.raises(UserError, match="a checkpoint needs its config"):
        measure_throughput("best.pth", photos, settings)
