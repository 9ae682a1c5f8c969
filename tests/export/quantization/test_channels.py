"""Channels of zeros at the input: the same numbers to the last bit, and only where they are safe."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from efftasks.export.quantization.channels import pad_input_channels

RANDOM = np.random.default_rng(0)
ALL, NONE = (getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{name}") for name in ("ENABLE_ALL", "DISABLE_ALL"))


def run(model: Any, images: np.ndarray, level: Any) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def stem(networks: ModuleType, channels: int = 2, groups: int = 1, image_is_read_twice: bool = False) -> Any:
    """Image -> integers -> convolution -> integers -> number, with asymmetric activations."""
    nodes = [
        networks.node("QuantizeLinear", ["images", "s_image", "z_image"], "image_int"),
        networks.node("DequantizeLinear", ["image_int", "s_image", "z_image"], "image"),
        networks.node("DequantizeLinear", ["w", "s_w", "z_w"], "w_float", axis=0),
        networks.node("Conv", ["image", "w_float"], "a", "stem", strides=[2, 2], pads=[1, 1, 1, 1], group=groups),
        networks.node("QuantizeLinear", ["a", "s_a", "z_a"], "a_int"),
        networks.node("DequantizeLinear", ["a_int", "s_a", "z_a"], "out"),
    ]
    if image_is_read_twice:
        nodes[-1].output[0] = "b"
        nodes += [
            networks.node("ReduceMax", ["image"], "largest", keepdims=1),
            networks.node("Add", ["b", "largest"], "out"),
        ]
    scales = dict(s_image=np.array(0.02), s_a=np.array(0.05), s_w=RANDOM.uniform(0.01, 0.02, 8))
    model = networks.network(nodes, ["out"], **scales)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    for size in ("N", 8, 4, 4):
        side = model.graph.output[0].type.tensor_type.shape.dim.add()
        setattr(side, "dim_param" if isinstance(size, str) else "dim_value", size)
    weights = RANDOM.integers(-64, 64, (8, channels // groups, 3, 3)).astype(np.int8)
    integers = dict(w=weights, z_w=np.zeros(8, np.int8), z_image=np.array(113, np.uint8), z_a=np.array(131, np.uint8))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in integers.items())
    shapes = dict(w=(onnx.TensorProto.INT8, weights.shape), w_float=(onnx.TensorProto.FLOAT, weights.shape))
    model.graph.value_info.extend(helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items())
    return model


@pytest.mark.parametrize("channels, added", [(2, 2), (3, 1), (5, 3)])
@pytest.mark.parametrize("level", [NONE, ALL], ids=["as it stands", "optimized"])
def test_the_results_are_the_same_to_the_last_bit(channels, added, level, networks) -> None:
    model = stem(networks, channels)
    images = RANDOM.normal(size=(2, channels, 8, 8)).astype(np.float32)
    expected = run(model, images, level)
    assert len(np.unique(expected)) > 50
    assert pad_input_channels(model) == added
    onnx.checker.check_model(model, full_check=True)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    assert list(weights.dims) == [8, channels + added, 3, 3]
    np.testing.assert_array_equal(run(model, images, level), expected)
    assert pad_input_channels(model) == 0  # once


@pytest.mark.parametrize(
    "options",
    [dict(channels=4), dict(groups=2), dict(image_is_read_twice=True)],
    ids=["four channels", "grouped", "other readers"],
)
def test_it_leaves_other_networks_alone(options, networks) -> None:
    model = stem(networks, **options)
    before = model.SerializeToString()
    assert pad_input_channels(model) == 0
    assert model.SerializeToString() == before


def test_a_network_in_float_is_left_alone(networks) -> None:
    convolution = networks.node("Conv", ["images", "w"], "out", "stem")
    model = networks.network([convolution], ["out"], w=RANDOM.normal(size=(8, 2, 3, 3)))
    assert helper.printable_graph(model.graph).count("Conv") == 1
    assert pad_input_channels(model) == 0
