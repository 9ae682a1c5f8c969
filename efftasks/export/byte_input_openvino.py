"""A network of OpenVINO that takes the pixels themselves, as :mod:`efftasks.export.byte_input` makes it of ONNX."""

from __future__ import annotations

from typing import Any

from efftasks.structures.spec import InputSpec

__all__ = ["with_bytes"]


def with_bytes(network: Any, image_input: InputSpec) -> Any:
    """A network that takes uint8 (N, H, W, 4) instead of normalized floats (N, 3, H, W); its own nodes are used.

    Where only quantized convolutions of integer weights read the image, they get weights of zero for the fourth
    channel: OpenVINO then has no float and no copy of three channels before them. Elsewhere the fourth channel is cut
    off. Results are equal up to the rounding of floats.

    Args:
        network: with one input, of that layout (``openvino.Model``).
        image_input: of that network, with its mean and std.
    """
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    old = network.get_parameters()[0]
    batch, _, height, width = old.get_partial_shape()
    image = ops.parameter(openvino.PartialShape([batch, height, width, 4]), openvino.Type.u8)
    image.set_friendly_name(old.get_friendly_name())
    image.output(0).set_names(old.output(0).get_names())
    weights = _integer_weights(old)
    planes = ops.transpose(image, ops.constant(np.array([0, 3, 1, 2], np.int64)))
    if weights is None:
        bounds = [ops.constant(np.array([i], np.int64)) for i in (0, 3, 1, 1)]
        planes = ops.slice(planes, *bounds)
    pairs = [(1 / std, mean / std) for mean, std in zip(image_input.mean, image_input.std)]
    if len(set(pairs)) == 1:  # OpenVINO can leave out what gives each byte back
        pairs = pairs[:1]
    elif weights is not None:
        pairs.append((1.0, 0.0))
    factors, shifts = np.array(pairs, np.float32).T.reshape(2, 1, -1, 1, 1)
    floats = ops.multiply(ops.convert(planes, "f32"), ops.constant(factors))
    normalized = ops.subtract(floats, ops.constant(shifts)) if shifts.any() else floats
    for target in list(old.output(0).get_target_inputs()):
        target.replace_source_output(normalized.output(0))
    for convert in weights or ():
        integers = convert.input_value(0).get_node().get_data()
        wide = np.pad(integers, [(0, 0), (0, 1), (0, 0), (0, 0)])
        convert.input(0).replace_source_output(ops.constant(wide).output(0))
    network.add_parameters([image])
    network.remove_parameter(old)
    network.validate_nodes_and_infer_types()
    return network


def _integer_weights(image: Any) -> list[Any] | None:
    """The Convert of each convolution's integer weights; None unless only such convolutions read the image."""
    quantizers = _readers(image)
    if any(_kind(node) != "FakeQuantize" or not _is_per_tensor(node) for node in quantizers):
        return None
    converts = []
    for convolution in (reader for node in quantizers for reader in _readers(node)):
        scaled = convolution.input_value(1).get_node() if _kind(convolution) == "Convolution" else None
        if scaled is None or _kind(scaled) != "Multiply" or len(_readers(scaled)) != 1:
            return None
        convert = scaled.input_value(0).get_node()
        if _kind(convert) != "Convert" or _kind(convert.input_value(0).get_node()) != "Constant":
            return None
        if len(_readers(convert)) != 1:
            return None
        converts.append(convert)
    return converts


def _is_per_tensor(quantizer: Any) -> bool:
    return all(quantizer.input_value(i).get_node().get_data().size == 1 for i in range(1, 5))


def _readers(node: Any) -> list[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def _kind(node: Any) -> str:
    return str(node.get_type_name())
