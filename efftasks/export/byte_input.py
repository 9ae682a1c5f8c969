"""An ONNX network that takes the pixels themselves, uint8 (N, H, W, 4), instead of normalized floats (N, 3, H, W)."""

from __future__ import annotations

from typing import Any

from efftasks.structures.spec import InputSpec

__all__ = ["take_bytes"]


def take_bytes(model: Any, image_input: InputSpec) -> None:
    """Let a network take bytes, and do inside what was done to them outside.

    Where the image's QuantizeLinear would give each byte back, as with a mean of 0 and a range of 0 to 255, the bytes
    go to the convolutions as they are, with nothing but a Transpose between them, which ONNX Runtime cancels against
    its own; results are equal to the last bit. Elsewhere the bytes become floats, which are normalized: results are
    equal up to the rounding of floats.

    Nothing reads the fourth channel but convolutions whose weights for it are zero, those of
    :func:`~efftasks.export.quantization.channels.pad_input_channels`. They keep it: ONNX Runtime copies every window
    of an input of 3 channels.

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
            if node.op_type == "QuantizeLinear" and self._gives_bytes_back(node):
                self._remove(node)
                self._replace_integers(node.output[0])
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

    def _replace_integers(self, integers: str) -> None:
        """Of the readers of the image's integers, those behind a Pad get all channels: no other Pad reads integers."""
        for node in list(self._graph.node):
            if integers not in node.input:
                continue
            if node.op_type == "Pad":
                self._remove(node)
                wide = self._planes()
                for reader in self._graph.node:
                    _rename_inputs(reader, node.output[0], wide)
            else:
                _rename_inputs(node, integers, self._three_planes())

    def _gives_bytes_back(self, quantizer: Any) -> bool:
        """Whether it makes the same byte of each one that the runtime has normalized."""
        import numpy as np
        from onnx import numpy_helper

        constants = {tensor.name: tensor for tensor in self._graph.initializer}
        if len(quantizer.input) < 3 or not set(quantizer.input[1:3]) <= set(constants):
            return False
        scale, zero = (numpy_helper.to_array(constants[name]) for name in quantizer.input[1:3])
        if scale.size != 1 or zero.dtype != np.uint8:
            return False
        pixels = np.arange(256, dtype=np.float32)
        factors, shifts = self._factors_and_shifts()
        integers = np.rint((pixels * factors - shifts) / scale) + zero.astype(np.float32)
        return bool((integers == pixels).all())

    def _factors_and_shifts(self) -> tuple[Any, Any]:
        """1 / std and mean / std, float32 (1, 3, 1, 1) as the runtime has them."""
        import numpy as np

        pairs = [(1 / std, mean / std) for mean, std in zip(self._input.mean, self._input.std)]
        factors, shifts = np.array(pairs, np.float32).T.reshape(2, 1, 3, 1, 1)
        return factors, shifts

    def _planes(self) -> str:
        return self._node("planes", "Transpose", [self._name], perm=[0, 3, 1, 2])

    def _three_planes(self) -> str:
        import numpy as np

        bounds = [self._constant(name, np.array([i], np.int64)) for name, i in (("first", 0), ("end", 3), ("axis", 1))]
        return self._node("three_planes", "Slice", [self._planes(), *bounds])

    def _floats(self) -> str:
        from onnx import TensorProto

        factors, shifts = self._factors_and_shifts()
        floats = self._node("floats", "Cast", [self._three_planes()], to=TensorProto.FLOAT)
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
