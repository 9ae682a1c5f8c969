"""Export of a model with fake quantization: integers in the file, and outputs of the PyTorch model in both runtimes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from efftasks.compression.quantization.convert import converted, quantization_of
from efftasks.compression.quantization.part import quantized_parts
from efftasks.export.exporters.onnx import write_graph
from efftasks.structures.errors import UserError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def exported(model: Any, path: Path) -> Path:
    return write_graph(converted(model), IMAGES[:2], path, dynamic={0: torch.export.Dim("batch", min=1)})


def session(path: Path, optimized: Path | None = None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.fixture(scope="module")
def model(toys: ModuleType) -> Any:
    return toys.calibrated(toys.seeded(toys.Toy), IMAGES)


def test_onnx_runtime_runs_convolutions_in_integers(model: Any, tmp_path: Path) -> None:
    path = exported(model, tmp_path / "model.onnx")
    written = operators(path)
    assert written["Conv"] == 6 and written["QuantizeLinear"] > 0 and written["Clip"] == 0
    weights = [x for x in onnx.load(str(path)).graph.initializer if len(x.dims) == 4]
    assert Counter(x.data_type for x in weights) == {onnx.TensorProto.INT8: 5, onnx.TensorProto.FLOAT: 1}
    file = session(path, tmp_path / "optimized.onnx")
    fused = operators(tmp_path / "optimized.onnx")
    assert (fused["QLinearConv"], fused["Conv"]) == (5, 1)
    # To integers: images, and what comes from the SiLU. To float: both operators of the SiLU, and the prediction layer.
    assert fused["QuantizeLinear"] == 2 and fused["DequantizeLinear"] == 3, fused
    for images in (IMAGES, IMAGES[:1]):
        (result,) = file.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images).numpy()
        assert np.abs(result - expected).max() < 0.05 * expected.std()
        assert np.abs(result - expected).mean() < 0.005 * expected.std()


def test_openvino_runs_it(model: Any, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = exported(model, tmp_path / "model.onnx")
    result = openvino.Core().compile_model(str(path), "CPU")({0: IMAGES.numpy()})[0]
    with torch.no_grad():
        expected = model(IMAGES).numpy()
    assert np.abs(result - expected).mean() < 0.02 * expected.std()


def test_weights_are_as_trained_whatever_was_run_before(model: Any) -> None:
    """An averaged checkpoint has averages of ranges: they are measured before conversion."""
    with torch.no_grad():
        expected = model(IMAGES)
        for part in quantized_parts(model).values():
            for name in part._weights:
                quantizer: Any = part.graph.get_submodule(name)
                quantizer.activation_post_process.min_val.mul_(3)
        assert torch.equal(converted(model)(IMAGES), expected)


def test_it_is_described(model: Any) -> None:
    spec = quantization_of(model)
    assert spec is not None
    assert (spec.weights, spec.activations, spec.granularity) == ("int8", "uint8", "per-channel")
    assert spec.float_layers == ("tower.out",)


def test_before_fake_quantization_it_is_a_float_model(toys: ModuleType, tmp_path: Path) -> None:
    model = toys.quantized(toys.seeded(toys.Toy)).train()
    toys.set_phase(model, observe=True, quantize=False)
    model(IMAGES)
    model.eval()
    assert quantization_of(model) is None and quantization_of(toys.Toy()) is None
    path = exported(model, tmp_path / "model.onnx")
    assert not {"QuantizeLinear", "DequantizeLinear"} & operators(path).keys()
    (result,) = session(path).run(None, {"images": IMAGES.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(result, model(IMAGES).numpy(), atol=1e-5)


def test_ranges_that_were_never_measured_are_refused(toys: ModuleType) -> None:
    model = toys.quantized(toys.seeded(toys.Toy))
    toys.set_phase(model, observe=False, quantize=True)
    with pytest.raises(UserError, match="maps: fake quantization is on, but some activations have no measured range"):
        quantization_of(model)


def test_a_model_without_quantized_parts_is_left_alone(toys: ModuleType) -> None:
    model = toys.Toy()
    assert converted(model) is model
