"""What exported query detectors consist of: no GridSample, five dimensions at most, any batch, whole norms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from efftasks import apis
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import graph_of

QUICK = ("deimv2_lite",)
SLOW = ("dfine", "deim", "deimv2", "rtdetrv2", "dfine_masks", "detrpose")
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
MOST_DIMENSIONS = 5
TRACED = 7  # images; no size in these networks


class Exported(NamedTuple):
    model: Any  # as in PyTorch
    graph: onnx.ModelProto
    path: Path


def small(families: ModuleType, family: str) -> Any:
    """A model whose queries, which are all cells, look at different places and score differently."""
    model = families.build_family(family)
    families.randomize_norms(model)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if parameter.dim() > 1 and ("head" in name or "sampling_offsets" in name or not bool(parameter.any())):
                parameter.normal_(std=0.01 if "quality" in name else 0.05)  # saturated scores would say nothing
            elif "score_head" in name:
                parameter.zero_()  # scores near 0.5 instead of near 0
    return model.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: Any, families: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = small(families, request.param)
    images = families.images(request.param, TRACED)
    path = write_graph(
        graph_of(apis.fuse(model), "inside"),
        images,
        tmp_path_factory.mktemp(request.param) / "model.onnx",
        dynamic={0: torch.export.Dim("batch", min=1)},
    )
    return Exported(model, onnx.load(str(path)), path)


def count_operators(graph: onnx.ModelProto) -> Counter[str]:
    assert not graph.functions
    return Counter(node.op_type for node in graph.graph.node)


def test_sampling_is_a_gather(exported: Exported) -> None:
    assert [entry.version for entry in exported.graph.opset_import if not entry.domain] == [18]
    counts = count_operators(exported.graph)
    assert counts["GridSample"] == 0 and counts["Gather"] > 0
    assert any(getattr(part, "sampling", None) == "grid_sample" for part in exported.model.modules())  # it still is


def test_no_tensor_has_more_than_five_dimensions(exported: Exported) -> None:
    inferred = onnx.shape_inference.infer_shapes(exported.graph, strict_mode=True, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    for node in inferred.node:
        for name in filter(None, node.output):
            assert shapes[name].HasField("shape"), f"{node.op_type} {name}: nothing is known of its shape"
            sides = [side.dim_value or side.dim_param for side in shapes[name].shape.dim]
            assert len(sides) <= MOST_DIMENSIONS, f"{node.op_type} {name}: {sides}"


def test_the_batch_of_the_trace_is_nowhere(exported: Exported) -> None:
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in exported.graph.graph.initializer}
    shaping = [node for node in exported.graph.graph.node if node.op_type in ("Reshape", "Expand", "Tile")]
    assert len(shaping) > 5
    for node in shaping:
        assert TRACED not in constants.get(node.input[1], np.zeros(0)), node.name


def test_any_batch_gives_what_pytorch_gives(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (network_input,) = session.get_inputs()
    for batch in (1, 2, 3):
        images = torch.rand(batch, *network_input.shape[1:], generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = [part.numpy() for part in exported.model.infer(images) if part is not None]
        assert expected[1].std() > 0.01
        for i, outputs in enumerate(zip(*session.run(None, {network_input.name: images.numpy()}), strict=True)):
            same_detections(outputs, [part[i] for part in expected])


def same_detections(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Whether nearly all detections of a file are those of the model; near ties may be in another order."""
    boxes, scores, labels = expected[:3]
    apart = np.abs(actual[0][:, None] - boxes[None]).max(-1) + 1e3 * np.abs(actual[1][:, None] - scores[None])
    nearest = (apart + 1e6 * (actual[2][:, None] != labels[None])).argmin(1)
    close = np.ones(len(nearest), bool)
    for ours, theirs in zip(expected, actual, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        far = np.abs(theirs - ours[nearest]) > 1e-3 * np.abs(ours[nearest]) + 1e-4 * np.abs(ours).max()
        close &= ~far.reshape(len(close), -1).any(1)
    assert close.mean() > 0.95


def test_every_layer_norm_is_one_operator(exported: Exported) -> None:
    norms = [part for part in apis.fuse(exported.model).modules() if isinstance(part, nn.LayerNorm)]
    assert count_operators(exported.graph)["LayerNormalization"] == len(norms)
