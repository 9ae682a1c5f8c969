"""A file whose answers are known by hand, of one size or of any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

__all__ = ["write_sized"]


def write_sized(path: Path, size: int | None = None, side: float = 16, **facts: Any) -> Path:
    """Scores are the means of blue, green and red in [0, 1], best first; boxes are (0, 0) to (side, side) pixels of the
    network input. ``size`` None gives a file of any size, a batch of any number of images.
    """
    shape = ["N", 3, "H", "W"] if size is None else [1, 3, size, size]
    spec = ArtifactSpec(
        **{
            "task": "detection",
            "classes": ("blue", "green", "red"),
            "category_ids": (1, 2, 3),
            "input": InputSpec(
                *("images", size or 64, size or 64),
                mean=(0, 0, 0),
                std=(255, 255, 255),
                color="BGR",
                dynamic_batch=size is None,
                dynamic_size=size is None,
            ),
            "outputs": (
                OutputSpec("boxes", ("N", 3, 4), "float32", ""),
                OutputSpec("scores", ("N", 3), "float32", ""),
                OutputSpec("labels", ("N", 3), "int64", ""),
            ),
            **facts,
        }
    )
    nodes = [
        helper.make_node("ReduceMean", ["images", "sides"], ["means"], keepdims=0),
        helper.make_node("TopK", ["means", "three"], ["scores", "labels"], axis=1),
        helper.make_node("Unsqueeze", ["scores", "last"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "corners"], ["boxes"]),
    ]
    values = {
        "sides": np.array([2, 3]),
        "three": np.array([3]),
        "last": np.array([2]),
        "zero": np.array(0, np.float32),
        "corners": np.array([[[0, 0, side, side]]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 3, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N", 3]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"efftasks": spec.to_json()})
    onnx.save(model, str(path))
    return path
