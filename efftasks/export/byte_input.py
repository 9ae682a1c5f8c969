"""An ONNX network that takes the pixels themselves, uint8 (N, H, W, 4), instead of normalized floats (N, 3, H, W)."""

from __future__ import annotations

from typing import Any

from efftasks.structures.spec import InputSpec

__all__ = ["take_bytes"]

_LARGEST = 127  # weight of 8 bits


def take_bytes(model: Any, image_input: InputSpec) -> None:
    """Let a network take bytes, and do inside what was done to them outside.

    Where the image's QuantizeLinear would give each byte back, as with a mean of 0 and a range of 0 to 255, the bytes
    go to the convolutions as they are, with nothing but a Transpose between them, which ONNX Runtime cancels against
    its own; results are equal to the last bit. Where it has another scale for each channel, a convolution of 1 x 1 in
    integers makes the integers of bytes: they are equal but for a few in a thousand, which another rounding leaves one
    higher or lower. Who reads floats gets them, normalized: results are equal up to the rounding of floats.

    Nothing reads the fourth channel but convolutions whose weights for it are zero, those of
    :func:`~efftasks.export.quantization.channels.pad_input_channels` and the one above. They keep it: ONNX Runtime
    copies every window of an input of 3 channels.

    Args:
        model: with one input, float32 (N, 3, H, W) (ModelProto); changed in place.
        image_input: of that network, with its mean and std.
    """
    rewriting = _Rewriting(model.graph, image_input)
    rewriting.replace_readers()
    rewriting.finish()


class _Rewriting:
    """The nodes between the new input and what reads the image, made when they are needed."""

    def __init__(self, graph: Any, image_input: InputSpec) -> None:
        self._graph, self._input = graph, image_input
        self._name = graph.input[0].name
        self._made: dict[str, Any] = {}  # nodes, in order
        self._removed: list[Any] = []

    def replace_readers(self) -> None:
        """Give everything that reads the image what it expects, made of bytes."""
        for node in list(self._graph.node):
            if self._name not in node.input:
                continue
            parameters = self._parameters(node)
            if parameters is not None:
                scale, zero = parameters
                self._remove(node)
                exact = self._gives_bytes_back(scale, zero)
                self._replace_integers(node.output[0], self._planes() if exact else self._integers(*node.input[1:3]))
            else:
                _rename_inputs(node, self._name, self._floats())

    def finish(self) -> None:
        """Put the new nodes first, drop what is not read any more, and change the type of the input."""
        from onnx import TensorProto

        graph = self._graph
        for i, node in enumerate(self._made.values()):
            graph.node.insert(i, node)
        read = {name for node in graph.node for name in node.input}
        gone = {name for node in self._removed for name in node.output}
        unread = {name for node in self._removed for name in node.input} - read
        for values, kept in (
            (graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in unread]),
            (graph.value_info, [value for value in graph.value_info if value.name not in gone]),
        ):
            del values[:]
            values.extend(kept)
        kind = graph.input[0].type.tensor_type
        kind.elem_type = TensorProto.UINT8
        batch, _, *sides = [type(side).FromString(side.SerializeToString()) for side in kind.shape.dim]
        del kind.shape.dim[:]
        kind.shape.dim.extend([batch, *sides, type(batch)(dim_value=4)])

    def _replace_integers(self, integers: str, wide: str) -> None:
        """Give the readers of the image's integers others: of four channels behind a Pad, else the first three.

        No Pad reads integers but that of the fourth channel.
        """
        for node in list(self._graph.node):
            if integers not in node.input:
                continue
            if node.op_type == "Pad":
                self._remove(node)
                for reader in self._graph.node:
                    _rename_inputs(reader, node.output[0], wide)
            else:
                _rename_inputs(node, integers, self._first_three(wide))

    def _parameters(self, node: Any) -> tuple[Any, Any] | None:
        """Scale and zero point of a QuantizeLinear that makes unsigned integers with one scale; None of other nodes."""
        import numpy as np
        from onnx import numpy_helper

        constants = {tensor.name: tensor for tensor in self._graph.initializer}
        if node.op_type != "QuantizeLinear" or len(node.input) < 3 or not set(node.input[1:3]) <= set(constants):
            return None
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        return (scale, zero) if scale.size == 1 and zero.dtype == np.uint8 else None

    def _gives_bytes_back(self, scale: Any, zero: Any) -> bool:
        """Whether a QuantizeLinear makes the same byte of each one that the runtime has normalized."""
        import numpy as np

        pixels = np.arange(256, dtype=np.float32)
        factors, shifts = self._factors_and_shifts()
        integers = np.rint((pixels * factors - shifts) / scale) + zero.astype(np.float32)
        return bool((integers == pixels).all())

    def _integers(self, scale: str, zero: str) -> str:
        """The image's integers of bytes, by a convolution of 1 x 1; the fourth channel is zero.

        A weight is 127 steps of 1 / (127 std), so that the bias rounds the mean to 1 / 127 of a pixel's step.
        """
        import numpy as np

        steps = np.append(1 / (np.array(self._input.std) * _LARGEST), 1.0).astype(np.float32)
        weights = np.diag([_LARGEST] * 3 + [0]).astype(np.int8).reshape(4, 4, 1, 1)
        shifts = np.append(np.rint(-np.array(self._input.mean) * _LARGEST), 0).astype(np.int32)
        parts = [self._planes()]
        for name, value, step in (
            ("pixels", None, np.float32(1)),
            ("weights", weights, steps),
            ("bias", shifts, steps),
        ):
            integers = parts.pop() if value is None else self._constant(f"{name}_integers", value)
            kind = np.uint8 if value is None else value.dtype
            constants = [
                self._constant(f"{name}_scale", np.asarray(step)),
                self._constant(f"{name}_zero", np.zeros(np.shape(step), kind)),
            ]
            axis = {} if value is None else dict(axis=0)
            parts.append(self._node(name, "DequantizeLinear", [integers, *constants], **axis))
        normalized = self._node("wide", "Conv", parts)
        return self._node(f"wide_{scale}_{zero}", "QuantizeLinear", [normalized, scale, zero])

    def _factors_and_shifts(self) -> tuple[Any, Any]:
        """1 / std and mean / std, float32 (1, 3, 1, 1) as the runtime has them."""
        import numpy as np

        pairs = [(1 / std, mean / std) for mean, std in zip(self._input.mean, self._input.std)]
        factors, shifts = np.array(pairs, np.float32).T.reshape(2, 1, 3, 1, 1)
        return factors, shifts

    def _planes(self) -> str:
        return self._node("planes", "Transpose", [self._name], perm=[0, 3, 1, 2])

    def _first_three(self, wide: str) -> str:
        import numpy as np

        bounds = [self._constant(name, np.array([i], np.int64)) for name, i in (("first", 0), ("end", 3), ("axis", 1))]
        return self._node(f"three_of_{wide}", "Slice", [wide, *bounds])

    def _floats(self) -> str:
        from onnx import TensorProto

        factors, shifts = self._factors_and_shifts()
        floats = self._node("floats", "Cast", [self._first_three(self._planes())], to=TensorProto.FLOAT)
        scaled = self._node("scaled", "Mul", [floats, self._constant("factors", factors)])
        return self._node("normalized", "Sub", [scaled, self._constant("shifts", shifts)]) if shifts.any() else scaled

    def _node(self, name: str, kind: str, inputs: list[str], **attributes: Any) -> str:
        """The output of a node, made once."""
        from onnx import helper

        output = f"{self._name}_{name}"
        self._made.setdefault(output, helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        name = f"{self._name}_{name}"
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _remove(self, node: Any) -> None:
        self._removed.append(node)
        self._graph.node.remove(node)


def _rename_inputs(node: Any, name: str, other: str) -> None:
    for i, read in enumerate(node.input):
        if read == name:
            node.input[i] = other
