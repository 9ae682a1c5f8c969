"""Networks that take the pixels themselves: the same results, whatever the fourth channel has."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from efftasks.export.byte_input import take_bytes
from efftasks.export.quantization.channels import pad_input_channels
from efftasks.structures.spec import InputSpec

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (2, 8, 6, 4), dtype=np.uint8)  # with a random fourth channel
UNIT = InputSpec("images", 8, 6, mean=(0, 0, 0), std=(255, 255, 255))
IMAGENET = InputSpec("images", 8, 6, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.fixture(scope="module")
def networks(module_at: Any) -> ModuleType:
    module: ModuleType = module_at(Path(__file__).parent / "quantization" / "networks.py")
    return module


def run(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """With and without optimization of the graph."""
    results = []
    for name in ("ENABLE_ALL", "DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{name}")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"images": images})[0])
    return results


def normalized(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """As the runtime does it: the factor and the shift are rounded to float32."""
    planes = pixels[..., :3].transpose(0, 3, 1, 2).astype(np.float32)
    factor, shift = (
        np.array(x, np.float32).reshape(3, 1, 1)
        for x in (1 / np.array(spec.std), np.array(spec.mean) / np.array(spec.std))
    )
    return planes * factor - shift


def network(networks: ModuleType, nodes: list[Any], sizes: tuple[Any, ...] = ("N", 3, 8, 6), **weights: Any) -> Any:
    """Image (N, 3, H, W) -> out; integers among the weights stay integers."""
    floats = {name: value for name, value in weights.items() if value.dtype.kind == "f"}
    model = networks.network(nodes, ["out"], **floats)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, sizes))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [None] * 4))
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items() if name not in floats
    )
    return model


def quantized(networks: ModuleType, scale: float, zero: int, groups: int = 1, also: str | None = None) -> Any:
    """Image -> integers -> convolution -> integers -> number; ``also`` is read by another node."""
    nodes = [
        networks.node("QuantizeLinear", ["images", "s_image", "z_image"], "image_int"),
        networks.node("DequantizeLinear", ["image_int", "s_image", "z_image"], "image"),
        networks.node("DequantizeLinear", ["w", "s_w", "z_w"], "w_float", axis=0),
        networks.node("Conv", ["image", "w_float"], "a", "stem", pads=[1, 1, 1, 1], group=groups),
        networks.node("QuantizeLinear", ["a", "s_a", "z_a"], "a_int"),
        networks.node("DequantizeLinear", ["a_int", "s_a", "z_a"], "b" if also else "out"),
    ]
    if also:
        nodes += [networks.node("ReduceMax", [also], "largest", keepdims=1)]
        nodes += [networks.node("Add", ["b", "largest"], "out")]
    weights = RANDOM.integers(-64, 64, (6, 3 // groups, 3, 3)).astype(np.int8)
    zeros = dict(z_w=np.zeros(6, np.int8), z_image=np.array(zero, np.uint8), z_a=np.array(131, np.uint8))
    constants: dict[str, Any] = dict(w=weights, **zeros)
    constants.update(s_image=np.array(scale), s_a=np.array(0.05), s_w=RANDOM.uniform(4e-5, 8e-5, 6) / scale)
    model = network(networks, nodes, **constants)
    pad_input_channels(model)
    return model


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check(model: Any, spec: InputSpec, tolerance: float) -> None:
    """Results before and after, whatever the fourth channel has."""
    expected = run(model, normalized(PIXELS, spec))
    take_bytes(model, spec)
    onnx.checker.check_model(model, full_check=True)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names)) and set(names) <= {name for node in model.graph.node for name in node.input}
    other = PIXELS.copy()
    other[..., 3] = 255 - other[..., 3]
    for one, two, three in zip(expected, run(model, PIXELS), run(model, other)):
        assert len(np.unique(one)) > 50
        np.testing.assert_allclose(two, one, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(three, two)


@pytest.mark.parametrize(
    ("mean", "std", "zero"), [(0, 255, 0), (0, 1, 0), (128, 64, 128)], ids=["unit", "pixels", "shifted"]
)
def test_bytes_reach_the_first_convolution_as_they_are(mean, std, zero, networks) -> None:
    model = quantized(networks, 1 / std, zero)
    check(model, InputSpec("images", 8, 6, mean=(mean,) * 3, std=(std,) * 3), 0)
    assert kinds(model)[:2] == ["Transpose", "DequantizeLinear"]
    assert not {"Pad", "Slice", "Cast", "Mul"} & set(kinds(model)) and kinds(model).count("QuantizeLinear") == 1
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in dims] == ["N", 8, 6, 4]


@pytest.mark.parametrize("options", [dict(groups=3), dict(also="image")], ids=["depthwise", "other readers"])
def test_without_weights_for_it_the_fourth_channel_is_cut_off(options, networks) -> None:
    model = quantized(networks, 1 / 255, 0, **options)
    check(model, UNIT, 0)
    assert kinds(model)[:2] == ["Transpose", "Slice"] and "Cast" not in kinds(model)


def test_who_reads_the_float_image_still_gets_it(networks) -> None:
    model = quantized(networks, 1 / 255, 0, also="images")
    check(model, UNIT, 1e-6)
    assert kinds(model).count("QuantizeLinear") == 1 and kinds(model).count("Cast") == 1


@pytest.mark.parametrize("options", [{}, dict(also="image")], ids=["four channels", "three"])
@pytest.mark.parametrize(
    ("spec", "scale", "zero"),
    [(UNIT, 0.9 / 255, 0), (UNIT, 1 / 255, 1), (IMAGENET, 0.0186, 114)],
    ids=["narrow", "shifted", "imagenet"],
)
def test_another_scale_is_a_convolution_in_integers(spec, scale, zero, options, networks) -> None:
    """Its integers are those of the floats; where rounding decides they may differ by one."""
    model = quantized(networks, scale, zero, **options)
    check(model, spec, 0 if spec is UNIT else 2 * 0.05)
    assert "Cast" not in kinds(model) and kinds(model).count("Conv") == 2 and "Pad" not in kinds(model)
    values = np.arange(256, dtype=np.uint8)
    pixels = np.stack([values, values[::-1], np.roll(values, 77), values], -1).reshape(2, 16, 8, 4)
    factor, shift = (np.array(x).reshape(3, 1, 1) for x in (1 / np.array(spec.std), np.array(spec.mean) / spec.std))
    exact = (pixels[..., :3].transpose(0, 3, 1, 2) * factor - shift) / scale + zero
    (wide,) = [x.output[0] for x in model.graph.node if x.op_type == "QuantizeLinear" and "s_image" in x.input]
    del model.graph.output[:]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [2, 16, 8, 4]))
    model.graph.output.append(helper.make_tensor_value_info(wide, onnx.TensorProto.UINT8, [None] * 4))
    for integers in run(model, pixels):
        assert np.abs(integers[:, :3] - np.clip(exact, 0, 255)).max() < 0.51


@pytest.mark.parametrize("spec", [UNIT, IMAGENET], ids=["unit", "imagenet"])
@pytest.mark.parametrize("sizes", [("N", 3, 8, 6), (2, 3, "2*rows", "2*columns")], ids=str)
def test_a_network_in_float(spec, sizes, networks) -> None:
    convolution = networks.node("Conv", ["images", "w"], "out", "stem", pads=[1, 1, 1, 1])
    model = network(networks, [convolution], sizes, w=RANDOM.normal(size=(8, 3, 3, 3)))
    check(model, spec, 1e-6)
    assert kinds(model) == ["Transpose", "Slice", "Cast", "Mul", *(["Sub"] if any(spec.mean) else []), "Conv"]
    dims = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [sizes[0], *sizes[2:], 4]
