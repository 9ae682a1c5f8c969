"""ExecuTorch's own files: what they hold, and that they give what the model gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor, apis
from efftasks.apis.forms import exported_graph
from efftasks.export.exporters.executorch import (
    EXPORTER,
    export_executorch,
    prepare_xnnpack,
    write_graph,
    write_metadata,
)
from efftasks.export.exporters.onnx import write_graph as onnx_graph
from efftasks.export.graph import Graph
from efftasks.export.quantization.layers import Layers
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.runtime.backends.executorch import BACKEND
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec, QuantizationSpec

pytest.importorskip("executorch", reason="the extra executorch is not installed")

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SIDE = 96


@pytest.fixture(scope="module")
def model() -> Any:
    """A detector as after some training: scores spread, and boxes are of some strides."""
    torch.manual_seed(0)
    narrow = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    cfg = apis.load_config(CONFIG, {**narrow, "image_size": SIDE})
    model = apis.build(cfg)
    head: Any = model.head
    for scores, sides in zip(head.one_to_one.classes, head.one_to_one.boxes):
        nn.init.normal_(scores[-1].weight, 0.0, 0.5)
        nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one batch gives the statistics
    with torch.no_grad():
        model.train()(torch.rand(4, 3, SIDE, SIDE))
    model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes), category_ids=(1, 2, 3, 4, 5, 6))
    return model.eval()


def description(model: Any) -> ArtifactSpec:
    """Of a file of one image."""
    spec = apis.describe(model)
    return replace(spec, input=replace(spec.input, dynamic_batch=False), backend=EXPORTER.name)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("executorch")
    return export_executorch(apis.fuse(model), description(model), folder / "model.pte")


def test_it_gives_what_the_model_gives_without_a_sidecar(model, path):
    assert [file.name for file in path.parent.iterdir()] == ["model.pte"]
    predictor = Predictor(path)
    assert predictor.spec == description(model)
    images = torch.rand(1, 3, SIDE, SIDE)
    outputs = predictor.session.run(images.numpy())
    with torch.no_grad():
        boxes, scores, labels, *_ = model.infer(images)
    np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=7e-3)
    assert np.array_equal(outputs["labels"], labels.numpy()) and len(np.unique(outputs["labels"])) > 1
    assert len(predictor([np.zeros((50, 70, 3), np.uint8)] * 2)[1]) == model.head.count_detections(SIDE, SIDE)


def test_convolutions_are_left_to_xnnpack(path):
    """Else they would run in ExecuTorch's portable operators, which are hundreds of times slower."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    (plan,) = (x for x in deserialize_pte_binary(path.read_bytes()).program.execution_plan if x.name == "forward")
    assert {delegate.id for delegate in plan.delegates} == {"XnnpackBackend"}
    names = {operator.name for operator in plan.operators}
    assert "aten::topk" in names and not names & {"aten::convolution", "aten::add", "aten::relu"}


def test_the_description_is_replaced_and_nothing_else(model, path, tmp_path):
    images = np.random.default_rng(0).random((1, 3, SIDE, SIDE), dtype=np.float32)
    copy = tmp_path / "model.pte"
    copy.write_bytes(path.read_bytes())
    longer = replace(description(model), source={"config": "ä" * 3000})
    write_metadata(copy, longer)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pte"]
    predictor = Predictor(copy)
    assert predictor.spec == longer
    for name, values in Predictor(path).session.run(images).items():
        np.testing.assert_array_equal(predictor.session.run(images)[name], values)
    write_metadata(copy, description(model))
    assert copy.read_bytes() == path.read_bytes()


class _Attention(nn.Module):
    """Queries, keys and values are thirds of one parameter; the weight of the convolution is a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        nn.init.normal_(self.attention.in_proj_bias)
        self.conv = nn.Conv2d(3, 4, 1)
        self.conv.weight = nn.Parameter(torch.randn(12, 3, 1, 1)[8:])

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.conv(images).flatten(2).transpose(1, 2)
        return self.attention(tokens, 2 * tokens, tokens - 1, need_weights=False)[0]


def test_weights_that_are_parts_of_a_tensor_are_written_as_such(tmp_path):
    network = _Attention().eval()
    images = torch.rand(1, 3, 6, 5)
    (values,) = BACKEND.open(write_graph(network, images, tmp_path / "model.pte")).run(images.numpy()).values()
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


class _Sampling(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.qr(images[0, 0])[0]


class _Branches(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("cannot be run at all\nand more")


def test_operators_that_it_lacks_are_named(tmp_path):
    with pytest.raises(WorkError, match=r"model\.pte: ExecuTorch cannot convert the network \(.*linalg_qr"):
        write_graph(_Sampling(), torch.zeros(1, 3, 8, 8), tmp_path / "model.pte")
    with pytest.raises(WorkError, match=r"cannot be exported \(RuntimeError: cannot be run at all\)"):
        write_graph(_Branches(), torch.zeros(1, 3, 8, 8), tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(model, tmp_path):
    spec = description(model)
    for change in (dict(dynamic_batch=True), dict(dynamic_size=True), dict(layout="NHWC")):
        (name,) = change
        with pytest.raises(UserError, match=rf"input\.{name}: got .*, a \.pte file is written with "):
            export_executorch(model, replace(spec, input=replace(spec.input, **change)), tmp_path / "model.pte")
    with pytest.raises(UserError, match="Conv2d has no method infer"):
        export_executorch(nn.Conv2d(3, 2, 1), spec, tmp_path / "model.pte")
    trained = replace(spec, precision="int8", quantization=QuantizationSpec(weights="int8", activations="uint8"))
    with pytest.raises(UserError, match="--backend executorch: the checkpoint was trained with fake quantization"):
        export_executorch(model, trained, tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_integers_are_computed_in_integers_and_find_nearly_the_same(model, path, tmp_path):
    from executorch.exir._serialize._program import deserialize_pte_binary

    inputs = [torch.rand(1, 3, SIDE, SIDE).numpy() for _ in range(4)]
    images = CalibrationImages([*"abcd"], lambda i: inputs[i], (0.0, 1.0))
    fused = apis.fuse(model)
    spec = replace(description(model), precision="int8")
    quantizer = prepare_xnnpack(fused, spec, tmp_path, images, (), opset=18)
    graph = onnx_graph(Graph(fused).eval(), torch.from_numpy(inputs[0]), tmp_path / "float.onnx")
    layers = Layers(onnx.load(str(graph)))
    assert (quantizer.names, len(quantizer.names)) == (layers.names, len(layers.names))
    integers = tmp_path / "model.pte"
    kept = quantizer.write(integers, Recipe("minmax", weight_bits=8))
    assert set(kept) == set(layers.kept)
    assert Predictor(integers).spec == spec and integers.stat().st_size < 0.6 * path.stat().st_size
    (plan,) = (x for x in deserialize_pte_binary(integers.read_bytes()).program.execution_plan if x.inputs)
    names = {operator.name for operator in plan.operators}
    assert not {name for name in names if "quantize" in name or "conv" in name}
    expected, found = (Predictor(x).session.run(inputs[0])["scores"].copy() for x in (path, integers))
    assert 0 < np.abs(np.sort(found) - np.sort(expected)).mean() < 0.05


FAMILIES = ("segformer_b0", "o2o_all", "sparseinst", "deimv2_lite", "rtdetrv2")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_converted(family, families, tmp_path):
    model = families.build_family(family).eval()
    families.randomize_norms(model)
    graph = exported_graph(apis.fuse(model), EXPORTER, (96, 96))
    images = families.images(family, 1)
    outputs = BACKEND.open(write_graph(graph, images, tmp_path / "model.pte")).run(images.numpy())
    with torch.no_grad():
        expected = graph(images)
    for values, theirs in zip(outputs.values(), expected, strict=True):
        limit = 1e-3 * float(theirs.abs().max())
        assert np.mean(np.abs(values - theirs.numpy()) <= limit) > 0.99
