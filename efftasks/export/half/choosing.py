"""Which nodes of an exported network are computed in float16.

float16 has 11 bits, ends at 65504, and keeps fewer bits of what is below 6.1e-5. A coordinate of 600 px has steps of
half a pixel, and a convolution whose largest output is 1e5 gives infinities, of which a norm makes NaN.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from efftasks.export.quantization.layers import WEIGHTED, matches, module_of, tail

__all__ = ["HalfChooser", "float_inputs", "float_tensors"]

_LARGEST = 1e4  # of what is seen on some images; others may have 6.5 times as much
_SMALLEST = 2.0**-14  # below, numbers lose their bits one by one

# Operators without weights that compute in float16 what they are given in float16. What is not named here stays in
# float32: LayerNormalization, Softmax, means and sums over many values, roots, exponentials, TopK, ArgMax, GridSample.
_ARITHMETIC = {"Add", "Div", "Max", "Min", "Mul", "Neg", "Sub", "Where"}
_ACTIVATIONS = {
    "Clip",
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Relu",
    "Sigmoid",
}
_MOVING = {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize"}
_MOVING |= {"Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
PASSING = frozenset(_ARITHMETIC | _ACTIVATIONS | _MOVING | {"Tanh"})
_ALWAYS_FLOAT = {"Resize": (1, 2)}  # inputs whose type ONNX fixes: region and factors


class HalfChooser:
    """Chooses nodes of a network.

    Args:
        model: the network in float32 (ModelProto), with the types of its tensors inferred.
        float_parts: patterns of names of modules that stay in float32.
    """

    def __init__(self, model: Any, float_parts: Iterable[str] = ()) -> None:
        self._graph = model.graph
        self._floats = float_tensors(model)
        last, after = tail(self._graph)
        parts = tuple(float_parts)
        self._kept = {
            node.name
            for node in self._graph.node
            if node.name in last or node.name in after or (parts and matches(module_of(node), parts))
        }

    @property
    def candidates(self) -> tuple[str, ...]:
        """Tensors whose range decides, but for constants."""
        names = (name for node in self._eligible() for name in self._tensors(node))
        constants = {tensor.name for tensor in self._graph.initializer}
        return tuple(dict.fromkeys(name for name in names if name not in constants))

    def choose(self, peaks: Mapping[str, float]) -> tuple[str, ...]:
        """Names of the nodes, in order.

        They start at layers with weights and pass on from there, so that no value is rounded that only float32 reads.

        Args:
            peaks: the largest absolute value of each of :attr:`candidates` and of the constants.
        """
        chosen: list[str] = []
        halves: set[str] = set()
        for node in self._eligible():
            starts = node.op_type in WEIGHTED
            if (starts or any(name in halves for name in node.input)) and all(
                _fits(peaks[name]) for name in self._tensors(node)
            ):
                chosen.append(node.name)
                halves.update(node.output)
        return tuple(chosen)

    def float_layers(self, chosen: Collection[str]) -> tuple[str, ...]:
        """Modules of the layers with weights that were not chosen, in order."""
        constants = {tensor.name for tensor in self._graph.initializer}
        layers = (
            node
            for node in self._graph.node
            if node.op_type in WEIGHTED and any(name in constants for name in node.input[:2])
        )
        return tuple(dict.fromkeys(module_of(node) for node in layers if node.name not in chosen))

    def _eligible(self) -> Iterator[Any]:
        for node in self._graph.node:
            supported = node.op_type in WEIGHTED or node.op_type in PASSING
            if supported and node.name not in self._kept and all(name in self._floats for name in node.output):
                yield node

    def _tensors(self, node: Any) -> list[str]:
        return [*(node.input[i] for i in float_inputs(node, self._floats)), *node.output]


def float_inputs(node: Any, floats: Collection[str]) -> Sequence[int]:
    """Indices of the inputs of a node that are float16 where it computes in float16."""
    fixed = _ALWAYS_FLOAT.get(node.op_type, ())
    return [i for i, name in enumerate(node.input) if name in floats and i not in fixed]


def float_tensors(model: Any) -> frozenset[str]:
    """Names of the tensors of a network that are float32, constants as well."""
    from onnx import TensorProto

    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return frozenset(names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT})


def _fits(peak: float) -> bool:
    """Whether values of this size keep their precision; zeros alone do, and NaN does not."""
    return peak == 0 or _SMALLEST <= peak <= _LARGEST
