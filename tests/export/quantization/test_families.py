"""A model of each family, quantized for both runtimes: its layers are integers, and what stays float is float."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from efftasks import apis
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.exporters.openvino import NncfQuantizer
from efftasks.export.graph import Graph
from efftasks.export.quantization.layers import Layers, float_parts_of
from efftasks.export.quantization.qdq import QdqQuantizer, cut
from efftasks.export.quantization.recipe import CalibrationImages, Recipe

QUICK = ("o2o",)
SLOW = ("o2o_masks", "o2o_keypoints", "dfine_masks", "deimv2_lite", "detrpose", "sparseinst", "simcc", "fpnlite")
PARAMETERS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in (*SLOW, "pidnet_s", "seaformer_s"))]
# Signal to noise in decibels where integers end; of random weights, whose maps are noise. Measured: 17.8 to 23, and
# 12.2 of SeaFormer.
LEAST_RATIO, LEAST_RATIOS = 15.0, {"seaformer_s": 10.0}


class Exported:
    """A family's model in float, and as ONNX."""

    def __init__(self, families: ModuleType, family: str, folder: Path) -> None:
        self.family = family
        model = families.build_family(family)
        families.randomize_norms(model)
        self.model = apis.fuse(model)
        self.parts = float_parts_of(self.model)
        batch = {0: torch.export.Dim("batch", min=1)}
        images = families.images(family)
        self.path = write_graph(Graph(self.model).eval(), images, folder / "float.onnx", dynamic=batch)
        generator = torch.Generator().manual_seed(5)
        self.inputs = [torch.rand(1, *images.shape[1:], generator=generator).numpy() for _ in range(4)]
        self.images = CalibrationImages([*"abcd"], lambda i: self.inputs[i])


@pytest.fixture(scope="module", params=PARAMETERS)
def exported(request: Any, families: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(families, request.param, tmp_path_factory.mktemp(request.param))


def runs(model: Any, image: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


def test_layers_have_the_names_of_the_models_convolutions(exported):
    modules = dict(exported.model.named_modules())
    layers = Layers(onnx.load(str(exported.path)), exported.parts)
    assert layers.names
    for name in (*layers.names, *layers.kept):
        assert isinstance(modules[name], (torch.nn.Conv2d, torch.nn.BatchNorm2d)), name  # a norm that was folded


def test_onnx_has_integers_where_it_should_and_nearly_the_same_maps(exported):
    made = QdqQuantizer(exported.path, exported.parts, exported.images)
    target = exported.path.with_name("int8.onnx")
    kept = made.write(target, Recipe("minmax"))
    chosen, stored = made.layers.choose(), onnx.load(str(target))
    assert set(kept) == set(made.layers.kept)
    producers = {name: node for node in stored.graph.node for name in node.output}
    boundary = {f"{name}_DequantizeLinear_Output" for name in chosen.boundary}
    for node in stored.graph.node:
        origins = [producers[name].op_type if name in producers else "" for name in node.input]
        if node.name in chosen.nodes and node.op_type in ("Conv", "ConvTranspose"):
            assert origins[:2] == ["DequantizeLinear"] * 2, node.name
        elif (
            node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Clip", "Pad") and node.name not in chosen.nodes
        ):
            read = [name for name, kind in zip(node.input, origins) if kind == "DequantizeLinear"]
            assert set(read) <= boundary, node.name
            assert "QuantizeLinear" not in origins
    for values in runs(stored, exported.inputs[0]):
        assert np.isfinite(values.astype(np.float64)).all()

    probe = cut(made.model, chosen.boundary)
    quantized = made.quantized(probe, chosen, Recipe("minmax"))
    pairs = list(zip(runs(probe, exported.inputs[1]), runs(quantized, exported.inputs[1])))
    ratios = [10 * np.log10(np.square(a).sum() / np.square(a - b).sum()) for a, b in pairs]
    assert np.mean(ratios) > LEAST_RATIOS.get(exported.family, LEAST_RATIO), ratios


@pytest.mark.slow
def test_openvino_has_integers_where_it_should(exported):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    made = NncfQuantizer(exported.path, exported.parts, exported.images)
    target = exported.path.with_name("int8.xml")
    made.write(target, Recipe("minmax"))
    chosen = Layers(onnx.load(str(exported.path)), exported.parts).choose()
    network = openvino.Core().read_model(target)
    convolutions = [op for op in network.get_ordered_ops() if "Convolution" in op.get_type_name()]
    assert len(convolutions) >= len(chosen.layers)
    for op in convolutions:
        kernel = op.input_value(1).get_node()
        while kernel.get_type_name() != "Constant":  # Reshape, Multiply, Convert
            kernel = kernel.input_value(0).get_node()
        is_integer = kernel.get_element_type().get_type_name() == "i8"
        assert is_integer == (op.get_friendly_name().split("/")[0] in chosen.nodes), op.get_friendly_name()
    for op in network.get_ordered_ops():
        if op.get_type_name() in ("MatMul", "Softmax", "TopK", "GridSample", "MVN", "Sigmoid"):
            for value in op.input_values():
                if value.get_node().get_type_name() == "FakeQuantize":
                    assert set(value.get_node().input_value(0).get_names()) & set(chosen.boundary), (
                        op.get_friendly_name()
                    )
    request = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for values in request(exported.inputs[0]).values():
        assert np.isfinite(values.astype(np.float64)).all()
