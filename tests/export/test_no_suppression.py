"""No suppression at any place: a scan of every graph that is exported for objects, masks and keypoints."""

from __future__ import annotations

from pathlib import Path

import efftasks.compat  # noqa: F401

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from efftasks import apis
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph

# What a suppression is made of, in any of its spellings: the operator itself, a loop over boxes, rows chosen by a mask.
SUPPRESSING = {"NonMaxSuppression", "Loop", "Scan", "If", "NonZero", "Compress", "Unique", "SequenceInsert"}
TASKS = {"insseg", "pose", "multitask"}
OUTPUTS = {"insseg": {"masks"}, "pose": {"keypoints"}, "multitask": {"masks", "keypoints", "segmentation"}}
SIDES = (64, 96)


def methods() -> list[Path]:
    """One config of each method, the smallest."""
    chosen: dict[str, Path] = {}
    for path in apis.shipped_configs().values():
        if path.parent.parent.name in TASKS and "coco" in path.stem:
            chosen.setdefault(path.parent.name, path)
    chosen["o2omulti"] = apis.config_path("o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128")
    return sorted(chosen.values())


def operators(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= operators(attribute.g)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", methods(), ids=lambda path: path.parent.name)
def test_every_graph_gives_one_row_an_object(path: Path, tmp_path: Path) -> None:
    cfg = apis.load_config(path)
    model = apis.fuse(apis.build(cfg))
    size = tuple(cfg.image_size) if path.parent.name == "simcc" else SIDES  # a head that is made for one size
    names = [output.name for output in model.outputs(*size)]
    assert OUTPUTS[path.parent.parent.name] <= set(names)
    file = tmp_path / "model.onnx"
    batch = torch.export.Dim("batch", min=1)
    write_graph(Graph(model).eval(), torch.zeros(2, 3, *size), file, output_names=names, dynamic={0: batch})
    found = onnx.load(file)
    assert not operators(found.graph) & SUPPRESSING
    assert all(not operators(function) & SUPPRESSING for function in found.functions)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 3, *size), dtype=np.float32)
    values = session.run(names, {"images": images})
    for spec, value in zip(model.outputs(*size), values):
        assert value.shape == (3, *spec.shape[1:]) and str(value.dtype) == spec.dtype
