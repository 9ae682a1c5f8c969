"""Rewriting an ONNX network so that chosen nodes compute in float16, every change of type being a Cast of its own."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from efftasks.export.half.choosing import float_inputs, float_tensors

__all__ = ["inline_constants", "round_like_half", "to_half"]


def inline_constants(model: Any) -> None:
    """Make initializers of Constant nodes with float32 tensors, so that they can become float16."""
    from onnx import TensorProto

    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is not None and tensor.data_type == TensorProto.FLOAT:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)


def to_half(model: Any, nodes: Collection[str]) -> Any:
    """A copy of a network in which some nodes compute in float16; its inputs and outputs stay float32.

    Nodes of float32 that follow each other exchange float32. The converter of ONNX Runtime (float16.py, as that of
    onnxconverter-common) rounds between any two of them, and cuts constants that are too large.

    Args:
        model: in float32 (ModelProto), with the types of its tensors inferred; it has no Constant nodes of float32.
        nodes: names of the nodes.
    """
    result = copy.deepcopy(model)
    rewriting = _Rewriting(result.graph, float_tensors(model), nodes)
    rewriting.run()
    return result


class _Rewriting:
    """A graph on its way to float16."""

    def __init__(self, graph: Any, floats: Collection[str], nodes: Collection[str]) -> None:
        self._graph, self._floats, self._chosen = graph, floats, nodes
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._halves: set[str] = set()  # what chosen nodes give
        self._made: list[Any] = []  # the nodes, in order
        self._casts: dict[str, str] = {}  # tensor -> the same in the other type

    def run(self) -> None:
        graph = self._graph
        for node in graph.node:
            chosen = node.name in self._chosen
            inputs = float_inputs(node, self._floats) if chosen else range(len(node.input))
            for i in inputs:
                if chosen != (node.input[i] in self._halves):
                    node.input[i] = self._other(node.input[i], chosen)
            self._made.append(node)
            if chosen:
                self._halves.update(node.output)
        for output in graph.output:
            if output.name in self._halves:
                raise ValueError(f"{output.name}: an output of the network was chosen, expected none")
        read = {name for node in self._made for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        for field, values in ((graph.node, self._made), (graph.initializer, kept), (graph.value_info, [])):
            del field[:]
            field.extend(values)

    def _other(self, name: str, half: bool) -> str:
        """The name of a tensor in the other type, float16 or else float32; what is no float stays as it is."""
        from onnx import TensorProto, helper, numpy_helper

        if name not in self._floats or (not half and name in self._constants):
            return name
        if name not in self._casts:
            other = self._casts[name] = f"{name}.{'float16' if half else 'float32'}"
            if name in self._constants:
                value = numpy_helper.to_array(self._constants[name])
                self._graph.initializer.append(numpy_helper.from_array(value.astype("float16"), other))
            else:
                kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                self._made.append(helper.make_node("Cast", [name], [other], other, to=kind))
        return self._casts[name]


def round_like_half(model: Any) -> Any:
    """A network in float32 with the numbers of one in float16: what hardware gives that computes in float16.

    Every value that the other has in float16 is rounded to it, and becomes infinite where it overflows. ONNX Runtime
    has few kernels of float16 for a CPU: it computes in float32 and rounds nothing between two such nodes, so that a
    file that overflows on a GPU gives the right numbers there.

    Args:
        model: as :func:`to_half` gives it.
    """
    from onnx import TensorProto, helper, numpy_helper

    result = copy.deepcopy(model)
    graph = result.graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    nodes: list[Any] = []
    for node in graph.node:
        is_cast = node.op_type == "Cast"
        if is_cast and node.input[0] in halves:
            nodes.append(helper.make_node("Identity", node.input, node.output, node.name))
        elif is_cast and node.attribute[0].i == TensorProto.FLOAT16:
            halves.update(node.output)
            nodes.extend(_rounding(node.input[0], node.output[0]))
        elif any(name in halves for name in node.input):  # a node has no floats of other types then
            halves.update(node.output)
            exact = [f"{name}.exact" for name in node.output]
            pairs = list(zip(exact, node.output))
            node.output[:] = exact
            nodes.append(node)
            nodes.extend(part for pair in pairs for part in _rounding(*pair))
        else:
            nodes.append(node)
    for tensor in graph.initializer:
        if tensor.name in halves:
            value = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _rounding(name: str, rounded: str) -> list[Any]:
    from onnx import TensorProto, helper

    half = f"{rounded}.rounded"
    return [
        helper.make_node("Cast", [name], [half], half, to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [rounded], f"{rounded}.widened", to=TensorProto.FLOAT),
    ]
