"""Input channels in fours, for ONNX Runtime's fast convolution of 8-bit integers."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["pad_input_channels"]

_STEP = 4  # a 32-bit lane holds four 8-bit integers


class _Stem(NamedTuple):
    """What reads the image in integers."""

    quantizer: Any  # its QuantizeLinear
    readers: list[Any]  # the DequantizeLinear behind it
    weights: set[str]  # integers of the convolutions behind those
    float_weights: set[str]  # the same as numbers


def pad_input_channels(model: Any) -> int:
    """Give the convolutions that read the image input channels of zeros, up to a multiple of four.

    ONNX Runtime copies every window of an input of 3 channels before it multiplies; one of 4 channels it reads in
    place: a stem of 32 channels at 640 px takes a third of the time. Results are equal to the last bit, since the
    weights of the new channels are zero.

    Args:
        model: with QuantizeLinear and DequantizeLinear (ModelProto); changed in place.

    Returns:
        The number of channels that were added; 0 if there is no need, or if anything but dense convolutions reads the
        quantized image.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    added = -graph.input[0].type.tensor_type.shape.dim[1].dim_value % _STEP
    stem = _stem(graph) if added else None
    if stem is None:
        return 0
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name in stem.weights:
        weight = numpy_helper.to_array(constants[name])
        constants[name].CopyFrom(numpy_helper.from_array(np.pad(weight, [(0, 0), (0, added), (0, 0), (0, 0)]), name))
    integers = stem.quantizer.output[0]
    wide, amounts = f"{integers}_wide", f"{integers}_channels"
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, added, 0, 0], np.int64), amounts))
    pad = helper.make_node("Pad", [integers, amounts], [wide], f"{stem.quantizer.name}_channels")
    graph.node.insert(list(graph.node).index(stem.quantizer) + 1, pad)
    for reader in stem.readers:
        reader.input[0] = wide
    stale = {reader.output[0] for reader in stem.readers} | stem.weights | stem.float_weights
    kept = [value for value in graph.value_info if value.name not in stale]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return added


def _stem(graph: Any) -> _Stem | None:
    """What reads the image in integers; None unless these are dense convolutions of constant weights alone."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    quantizers = [node for node in readers.get(graph.input[0].name, ()) if node.op_type == "QuantizeLinear"]
    if len(quantizers) != 1:
        return None
    floats = readers.get(quantizers[0].output[0], [])
    convolutions = [node for part in floats for node in readers.get(part.output[0], ())]
    weights = set()
    for node in convolutions:
        grouped = any(entry.name == "group" and entry.i > 1 for entry in node.attribute)
        source = producers.get(node.input[1]) if node.op_type == "Conv" and not grouped else None
        if source is None or source.input[0] not in constants:
            return None
        weights.add(source.input[0])
    only_here = all(
        node in convolutions for name in weights for part in readers[name] for node in readers[part.output[0]]
    )
    if not convolutions or not only_here or any(node.op_type != "DequantizeLinear" for node in floats):
        return None
    return _Stem(quantizers[0], floats, weights, {node.input[1] for node in convolutions})
