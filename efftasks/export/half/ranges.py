"""How large the numbers of a network become on some images."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["measure_peaks"]


def measure_peaks(model: Any, tensors: Sequence[str], images: Iterable[np.ndarray]) -> dict[str, float]:
    """The largest absolute value of some tensors of a network, and of all its float32 constants.

    Args:
        model: in float32 (ModelProto).
        tensors: names of what nodes give, or of the input.
        images: network inputs float32 (N, 3, H, W), at least one.
    """
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    peaks = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    measuring = copy.deepcopy(model)
    graph = measuring.graph
    del graph.output[:]
    for i, name in enumerate(tensors):  # inside the network: the tensors themselves would take gigabytes
        graph.node.append(helper.make_node("Abs", [name], [f"peak_{i}_of"]))
        graph.node.append(helper.make_node("ReduceMax", [f"peak_{i}_of"], [f"peak_{i}"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(f"peak_{i}", TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(measuring.SerializeToString(), options, providers=["CPUExecutionProvider"])
    peaks.update((name, 0.0) for name in tensors)
    for image in images:
        values = session.run(None, {session.get_inputs()[0].name: image}) if tensors else []
        for name, value in zip(tensors, values):
            peaks[name] = float(np.maximum(peaks[name], value))  # a NaN stays one
    return peaks
