"""The file for X-AnyLabeling: what it takes and gives, computed by hand; and its YAML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper

from efftasks.export.x_anylabeling import write_x_anylabeling
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

MEAN, STD = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
NAMES = ("1", 'a "b": c')
SPEC = ArtifactSpec(
    task="detection",
    classes=NAMES,
    category_ids=(1, 2),
    input=InputSpec("images", 4, 6, mean=MEAN, std=STD, divisor=1),
    outputs=(
        OutputSpec("boxes", ("N", 1, 4), "float32", ""),
        OutputSpec("scores", ("N", 1), "float32", ""),
        OutputSpec("labels", ("N", 1), "int64", ""),
    ),
    source={"config": "my_config"},
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file whose box is the mean of each channel of its input, and that of the first one again."""
    constants = {"hw": [2, 3], "one": [1], "zero": [0], "label": [[1]], "half": np.array([[0.5]], np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images", "hw"], ["means"], keepdims=0),
        helper.make_node("Slice", ["means", "zero", "one", "one"], ["first"]),
        helper.make_node("Concat", ["means", "first"], ["four"], axis=1),
        helper.make_node("Unsqueeze", ["four", "one"], ["boxes"]),
        helper.make_node("Identity", ["half"], ["scores"]),
        helper.make_node("Identity", ["label"], ["labels"]),
    ]
    outputs = [("boxes", TensorProto.FLOAT, 3), ("scores", TensorProto.FLOAT, 2), ("labels", TensorProto.INT64, 2)]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 4, 6])],
        [helper.make_tensor_value_info(name, kind, [None] * rank) for name, kind, rank in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_it_takes_rgb_from_0_to_1_and_gives_rows_of_six(model, color):
    config = write_x_anylabeling(model, replace(SPEC, input=replace(SPEC.input, color=color)))
    session = onnxruntime.InferenceSession(str(config.with_suffix(".onnx")))
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert given.shape == [1, 3, 4, 6] and result.shape == [1, 1, 6]
    rgb = np.broadcast_to(np.array([0.2, 0.4, 0.8], np.float32).reshape(1, 3, 1, 1), (1, 3, 4, 6))
    channels = np.array([0.2, 0.4, 0.8] if color == "RGB" else [0.8, 0.4, 0.2]) * 255
    means = (channels - MEAN) / STD
    (rows,) = session.run(None, {given.name: np.ascontiguousarray(rgb)})
    np.testing.assert_allclose(rows, [[[*means, means[0], 0.5, 1]]], rtol=1e-5)


def test_the_yaml(model):
    config = write_x_anylabeling(model, SPEC)
    assert yaml.safe_load(config.read_text(encoding="utf-8")) == {
        "type": "yolov10",
        "name": "my_config",
        "provider": "efftasks",
        "display_name": "my_config",
        "model_path": "x_anylabeling.onnx",
        "input_width": 6,
        "input_height": 4,
        "conf_threshold": 0.3,
        "classes": list(NAMES),
    }


def test_a_file_that_gives_something_else_is_an_error(model, monkeypatch):
    original = helper.make_node

    def wrong(kind, *rest, **more):
        return original("Add" if kind == "Sub" else kind, *rest, **more)

    monkeypatch.setattr(helper, "make_node", wrong)
    with pytest.raises(WorkError, match="does not give what"):
        write_x_anylabeling(model, SPEC)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(backend="openvino"), "backend: got openvino, expected onnx"),
        (dict(outputs=(OutputSpec("segmentation", ("N", 4, 6), "uint8", ""),)), "gives segmentation, expected a detec"),
        (
            dict(input=replace(SPEC.input, dtype="uint8", layout="NHWC", channels=4)),
            "input: got uint8, expected float32",
        ),
    ],
)
def test_refused(model, changes, problem):
    with pytest.raises(UserError, match=problem):
        write_x_anylabeling(model, replace(SPEC, **changes))
    assert not list(model.parent.glob("x_*"))
