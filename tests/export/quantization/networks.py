"""Small ONNX networks made by hand, as PyTorch's exporter would write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def node(kind: str, inputs: list[str], output: str, module: str | None = None, **attributes: Any) -> Any:
    """A node that is named like its output, with the metadata that PyTorch's exporter writes."""
    made = helper.make_node(kind, inputs, [output], name=f"n_{output}", **attributes)
    if module is not None:
        scopes = str(["", "model", *[f"model.{module}"], output])
        made.metadata_props.append(onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=scopes))
    return made


def network(nodes: list[Any], outputs: list[str], **weights: np.ndarray) -> Any:
    floats = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 2, 8, 8])],
        floats,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
