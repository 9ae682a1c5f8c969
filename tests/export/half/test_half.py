"""Networks in float16: what overflows or loses its bits stays in float32, and what is hidden on a CPU is seen."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from efftasks import apis
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph
from efftasks.export.half.choosing import HalfChooser
from efftasks.export.half.converting import inline_constants, round_like_half, to_half
from efftasks.export.half.network import half_network
from efftasks.export.quantization.layers import float_parts_of
from efftasks.export.quantization.qdq import cut
from efftasks.structures.errors import UserError

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [np.random.default_rng(i).random((1, 2, 8, 8), np.float32) + 1 for i in range(2)]


@pytest.fixture(scope="module")
def networks(module_at: Any) -> ModuleType:
    module: ModuleType = module_at(Path(__file__).parents[1] / "quantization" / "networks.py")
    return module


def three_layers(networks: ModuleType, factor: float) -> Any:
    """A convolution whose outputs are of the size of a factor, what divides them by it, and two more."""
    weights = {f"w{i}": np.random.default_rng(i).random((2, 2, 1, 1)) + 0.2 for i in range(3)}
    weights["w0"] = weights["w0"] * factor
    node = networks.node
    nodes = [
        node("Conv", ["images", "w0"], "big", "backbone.big"),
        node("Relu", ["big"], "active"),
        node("Div", ["active", "factor"], "normal"),
        node("Conv", ["normal", "w1"], "middle", "neck.middle"),
        node("Relu", ["middle"], "passed"),
        node("Conv", ["passed", "w2"], "boxes", "head.boxes"),
        node("Mul", ["boxes", "stride"], "pixels"),
    ]
    return networks.network(nodes, ["pixels"], **weights, factor=np.array(factor), stride=np.array(600.0))


def runs(model: Any, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"images": image})
    return np.asarray(value)


def naive(model: Any) -> Any:
    """All nodes in float16 that can be, whatever their range."""
    model = onnx.shape_inference.infer_shapes(model)
    chooser = HalfChooser(model)
    ones = dict.fromkeys([*chooser.candidates, *(tensor.name for tensor in model.graph.initializer)], 1.0)
    return to_half(model, chooser.choose(ones))


@pytest.mark.parametrize("factor", [4e4, 1e-8], ids=["too large", "too small"])
def test_what_overflows_stays_in_float32_and_a_naive_file_is_seen_through(factor, networks, images):
    network = three_layers(networks, factor)
    expected = runs(network, images[0])
    wrong = naive(network)
    with np.errstate(all="ignore"):
        (truth,) = ReferenceEvaluator(wrong).run(None, {"images": images[0]})  # numpy, in float16
    assert not np.allclose(truth, expected, rtol=0.05)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(runs(round_like_half(wrong), images[0]), truth, rtol=0.2)  # the wrong one, as wrong
    if factor > 1:
        np.testing.assert_allclose(runs(wrong, images[0]), expected, rtol=0.01)  # ONNX Runtime's CPU hides it

    right, float_layers = half_network(network, (), images)
    assert float_layers == ("backbone.big", "head.boxes")
    (truth,) = ReferenceEvaluator(right).run(None, {"images": images[0]})
    np.testing.assert_allclose(truth, expected, rtol=3e-3)
    np.testing.assert_allclose(runs(round_like_half(right), images[0]), truth, rtol=1e-3)
    kinds = {tensor.name: tensor.data_type for tensor in right.graph.initializer}
    assert (kinds["w0"], kinds["w1.float16"], kinds["w2"], kinds["stride"]) == (FLOAT, HALF, FLOAT, FLOAT)


def test_pixels_keep_fractions_of_half_a_pixel(networks, images):
    """Coordinates behind the last layers are in float32: between 512 and 1024 float16 has steps of 0.5."""
    node = networks.node
    nodes = [
        node("Conv", ["images", "w"], "a", "backbone"),
        node("Conv", ["a", "w"], "sides", "head"),
        node("Mul", ["sides", "nothing"], "none"),
        node("Add", ["none", "points"], "pixels"),
    ]
    points = np.array(601.3)
    network = networks.network(nodes, ["pixels"], w=np.ones((2, 2, 1, 1)), nothing=np.array(0.0), points=points)
    half, _ = half_network(network, (), images)
    np.testing.assert_allclose(runs(round_like_half(half), images[0]), 601.3, atol=1e-4)


def test_nodes_of_float32_exchange_float32(networks, images):
    """A part that a model declares computes as before, and its input alone is rounded; a shared weight is not."""
    node = networks.node
    nodes = [
        node("Conv", ["images", "w"], "a", "backbone"),
        node("Conv", ["a", "w"], "b", "decoder.first"),
        node("Sigmoid", ["b"], "c", "decoder.gate"),
        node("Conv", ["c", "w"], "d", "decoder.second"),
        node("Conv", ["d", "w"], "e", "tower"),
        node("Conv", ["e", "w"], "f", "head"),
    ]
    network = networks.network(nodes, ["f"], w=np.full((2, 2, 1, 1), 1 / 3))
    half, float_layers = half_network(network, ("decoder",), images)
    assert float_layers == ("decoder.first", "decoder.second", "head")
    casts = [(tuple(node.input), node.attribute[0].i) for node in half.graph.node if node.op_type == "Cast"]
    assert casts == [(("images",), HALF), (("a",), FLOAT), (("d",), HALF), (("e",), FLOAT)]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in half.graph.initializer}
    assert weights["w"].dtype == np.float32 and weights["w.float16"].dtype == np.float16
    assert {value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)} == {FLOAT}


def test_without_a_layer_that_fits_it_is_refused(networks, images):
    network = networks.network([networks.node("Conv", ["images", "w"], "a", "only")], ["a"], w=np.ones((2, 2, 1, 1)))
    with pytest.raises(UserError, match="--precision: got 'fp16', but the numbers of no layer fit"):
        half_network(network, (), images)


QUICK, SLOW = ("o2o",), ("o2o_masks", "o2o_keypoints", "dfine", "deimv2_lite", "rtdetrv2", "detrpose", "sparseinst")
SEGMENTERS = ("simcc", "fpnlite", "ppliteseg_t", "segformer_b0")


@pytest.mark.parametrize(
    "family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW + SEGMENTERS)]
)
def test_families_have_nearly_the_same_maps(family, families, tmp_path):
    """Where float16 ends, rounding is 50 decibels below what is there; no type is mixed, and no name is left."""
    model = families.build_family(family)
    families.randomize_norms(model)
    model = apis.fuse(model)
    batch = {0: torch.export.Dim("batch", min=1)}
    inputs = families.images(family)
    path = write_graph(Graph(model).eval(), inputs, tmp_path / "float.onnx", dynamic=batch)
    network = onnx.load(str(path))
    pictures = [torch.rand(1, *inputs.shape[1:]).numpy() for _ in range(2)]
    half, float_layers = half_network(network, float_parts_of(model), pictures)
    onnx.checker.check_model(half, full_check=True)
    assert set(float_layers) < set(dict(model.named_modules()))
    widened = [node for node in half.graph.node if node.op_type == "Cast" and node.output[0].endswith(".float32")]
    boundary = [node.input[0] for node in widened][:8]
    assert boundary
    inline_constants(network)
    exact, rounded = (_many(cut(model, boundary), pictures[0]) for model in (network, round_like_half(half)))
    ratios = [10 * np.log10((a**2).mean() / ((a - b) ** 2).mean()) for a, b in zip(exact, rounded)]
    assert min(ratios) > 40, ratios


def _many(model: Any, image: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: image})
    return values
