"""Files for TensorRT: its rules, symmetric integers, and the command that builds an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from efftasks.export.exporters.tensorrt import EXPORTER, _SymmetricQuantizer, build_command, check_rules
from efftasks.export.quantization.qdq import QdqQuantizer
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec


@pytest.fixture(scope="module")
def networks(module_at: Any) -> ModuleType:
    module: ModuleType = module_at(Path(__file__).parent / "quantization" / "networks.py")
    return module


@pytest.fixture(scope="module")
def network(networks: ModuleType) -> Any:
    """Three convolutions with biases, of which the last one stays in float."""
    random = np.random.default_rng(0)
    node = networks.node
    weights = {f"w{i}": random.standard_normal((2, 2, 3, 3)) for i in range(3)}
    weights |= {f"b{i}": random.standard_normal(2) for i in range(3)}
    nodes = [
        node("Conv", ["images", "w0", "b0"], "a", "stem", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], "c"),
        node("Conv", ["c", "w1", "b1"], "d", "neck", pads=[1, 1, 1, 1]),
        node("Sigmoid", ["d"], "e"),
        node("Conv", ["e", "w2", "b2"], "boxes", "head", pads=[1, 1, 1, 1]),
    ]
    return networks.network(nodes, ["boxes"], **weights)


def quantized(network: Any, kind: type[QdqQuantizer], folder: Path) -> tuple[Any, list[np.ndarray]]:
    onnx.save(network, str(folder / "float.onnx"))
    images = [np.random.default_rng(i).random((1, 2, 8, 8), np.float32) for i in range(4)]
    made = kind(folder / "float.onnx", (), CalibrationImages([*"abcd"], lambda i: images[i]))
    assert made.write(folder / "int8.onnx", Recipe("minmax", weight_bits=8)) == ("head",)
    return onnx.load(str(folder / "int8.onnx")), images


def run(model: Any, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"images": image})
    return np.asarray(value)


def test_integers_are_signed_around_zero_and_biases_float(network, tmp_path):
    """By the file itself: int8 and zero everywhere, a scale for each channel of the weights, no integers of 32 bits."""
    model, images = quantized(network, _SymmetricQuantizer, tmp_path)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    parts = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert parts
    for part in parts:
        assert tensors[part.input[2]].dtype == np.int8 and not tensors[part.input[2]].any()
    assert {value.dtype for value in tensors.values()} == {np.dtype("int8"), np.dtype("float32")}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = [producers[node.input[1]] for node in convolutions if node.input[1] in producers]
    assert [tensors[part.input[1]].shape for part in weights] == [(2,), (2,)]
    assert all(node.input[2] in ("b0", "b1", "b2") for node in convolutions)
    expected, value = run(network, images[0]), run(model, images[0])
    assert ((expected - value) ** 2).mean() < 1e-3 * (expected**2).mean()


def test_what_tensorrt_does_not_take_is_refused(network, networks, tmp_path):
    model, _ = quantized(network, QdqQuantizer, tmp_path)
    with pytest.raises(UserError, match=r"a\.onnx: .* has zero points of (uint8|int32) up to \d+, expected int8 and 0"):
        check_rules(model, "a.onnx")
    sampled = networks.network(
        [networks.node("GridSample", ["images", "grid"], "boxes")], ["boxes"], grid=np.zeros((1, 4, 4, 2))
    )
    with pytest.raises(UserError, match=r"a\.onnx: got GridSample \(n_boxes\), which TensorRT 10\.14 and newer may"):
        check_rules(sampled, "a.onnx")
    check_rules(network, "a.onnx")
    network.opset_import[0].version = 16
    try:
        with pytest.raises(UserError, match=r"a\.onnx: got opset 16, TensorRT needs 17 or newer"):
            check_rules(network, "a.onnx")
    finally:
        network.opset_import[0].version = 18


def test_the_command_that_builds_an_engine():
    image_input = InputSpec("images", 96, 128, mean=(0, 0, 0), std=(255, 255, 255))
    outputs = (OutputSpec("boxes", ("N", 10, 4), "float32", ""),)
    spec = ArtifactSpec("detection", ("a",), (1,), image_input, outputs, precision="fp16")
    shapes = "--minShapes=images:1x3x96x128 --optShapes=images:1x3x96x128 --maxShapes=images:8x3x96x128"
    start = "trtexec --onnx=out/m.onnx --saveEngine=out/m.engine --stronglyTyped"
    assert build_command(Path("out/m.onnx"), spec) == f"{start} {shapes}"
    fixed = replace(image_input, dynamic_batch=False)
    assert build_command(Path("out/m.onnx"), replace(spec, input=fixed, precision="fp32")) == f"{start} --noTF32"
    free = replace(fixed, dynamic_size=True)
    command = build_command(Path("out/m.onnx"), replace(spec, input=free))
    assert command.endswith(
        "--minShapes=images:1x3x128x128 --optShapes=images:1x3x96x128 --maxShapes=images:1x3x96x128"
    )


def test_it_takes_normalized_images_alone():
    assert EXPORTER.take_bytes is None and EXPORTER.precisions[0] == "fp16"
