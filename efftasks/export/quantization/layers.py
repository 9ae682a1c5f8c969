"""Which nodes of an exported network are computed in 8-bit integers, by the modules that they come from.

PyTorch's exporter writes the path of the module into the metadata of each node, so that layers are chosen by the names
of the model, and none by the names that an exporter makes up.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from efftasks.structures.errors import UserError
from efftasks.structures.protocols import KeepsFloat

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PASSING",
    "SCOPES",
    "WEIGHTED",
    "Chosen",
    "Layers",
    "drop_scopes",
    "float_parts_of",
    "matches",
    "module_of",
    "remaining",
    "tail",
]

SCOPES = "pkg.torch.onnx.name_scopes"
_ROOT = "model."  # the model inside of efftasks.export.graph.Graph
_SLICED = re.compile(r"slice\((None|\d+), (?:None|-?\d+), None\)\.(\d+)")  # how a module of layers[1:] is called
_CONVOLUTIONS = ("Conv", "ConvTranspose")
WEIGHTED = (*_CONVOLUTIONS, "Gemm", "MatMul")

# Operators between two quantized layers that let integers through, so that no value is made a float and an integer
# again on the way, and why: the first reason is that nothing is computed, the others name the integer kernel of ONNX
# Runtime. OpenVINO moves its quantization through the same ones. What has no such kernel (HardSigmoid, HardSwish, Erf,
# ReduceMean, Softmax, LayerNormalization) stays float, and so does all after the last layers.
PASSING = {
    "Relu": "becomes the range of what is before it, zero to the largest",
    "Clip": "becomes the range of what is before it",
    "MaxPool": "the largest integer is that of the largest number",
    "Reshape": "moves values",
    "Transpose": "moves values",
    "Squeeze": "moves values",
    "Unsqueeze": "moves values",
    "Flatten": "moves values",
    "Slice": "moves values",
    "Split": "moves values",
    "Resize": "nearest moves values, linear weights integers",
    "Concat": "QLinearConcat: a table per input where scales differ",
    "Add": "QLinearAdd",
    "Mul": "QLinearMul: gates of squeeze and excitation, and SiLU",
    "Sigmoid": "QLinearSigmoid: a table of 256 entries",
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
}
_FOLDED = ("Relu", "Clip")
_ALL_INPUTS = ("Concat", "Add", "Mul")  # of others the first input is the data, the rest are sizes


@dataclass(frozen=True)
class Chosen:
    """What is quantized.

    Attributes:
        layers: names of modules, in the order of the graph.
        nodes: names of their nodes, and of the nodes that let integers through.
        boundary: tensors that the quantized part gives to the float part.
    """

    layers: tuple[str, ...]
    nodes: frozenset[str]
    boundary: tuple[str, ...]


@dataclass
class _Layer:
    nodes: list[Any] = field(default_factory=list)
    last: bool = False


class Layers:
    """The convolutions of an exported network, by module.

    Args:
        model: the ONNX model (ModelProto).
        float_parts: patterns of names of modules that stay in float, with all below them.
    """

    def __init__(self, model: Any, float_parts: Iterable[str] = ()) -> None:
        self._graph = model.graph
        self._constants = {tensor.name for tensor in self._graph.initializer}
        self._constants |= {name for node in self._graph.node if node.op_type == "Constant" for name in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._all: dict[str, _Layer] = {}
        last, _ = tail(self._graph)
        for node in self._graph.node:
            if node.op_type in _CONVOLUTIONS and node.input[1] in self._constants:
                layer = self._all.setdefault(module_of(node), _Layer())
                layer.nodes.append(node)
                layer.last |= node.name in last
        parts = tuple(float_parts)
        self.kept = tuple(
            name for name, layer in self._all.items() if layer.last or matches(name, parts)
        )  #: stay in float by the model's own rule
        self.names = tuple(name for name in self._all if name not in self.kept)  #: can be quantized

    def choose(self, float_layers: Iterable[str] = (), only: Collection[str] | None = None) -> Chosen:
        """Choose what is quantized.

        Args:
            float_layers: patterns of names of layers, or of modules with all below them, that stay in float.
            only: names of layers; the others stay in float. None for all.

        Raises:
            UserError: a pattern matches no layer, or nothing is left to be quantized.
        """
        layers = remaining(self.names, tuple(self._all), tuple(float_layers), only)
        convolutions = {node.name: node for name in layers for node in self._all[name].nodes}
        passing = self._passing(convolutions)
        nodes = frozenset((*convolutions, *passing))
        return Chosen(tuple(layers), nodes, tuple(self._boundary(nodes)))

    def cost(self, name: str) -> int:
        """Number of weights of a layer."""
        shapes = {tensor.name: tensor.dims for tensor in self._graph.initializer}
        total = 1
        for side in shapes[self._all[name].nodes[0].input[1]]:
            total *= side
        return total

    def _passing(self, convolutions: Collection[str]) -> set[str]:
        """Names of the nodes between quantized layers, and after them, that let integers through."""
        integers = {name for node in self._graph.node if node.name in convolutions for name in node.output}
        candidates = []
        for node in self._graph.node:  # in the order of computation
            inputs = node.input if node.op_type in _ALL_INPUTS else node.input[:1]
            if node.op_type in PASSING and all(name in integers for name in inputs):
                candidates.append(node)
                integers.update(node.output)
        passing: set[str] = set()
        for node in reversed(candidates):
            readers = [reader.name for name in node.output for reader in self._consumers.get(name, ())]
            if node.op_type in _FOLDED or any(name in convolutions or name in passing for name in readers):
                passing.add(node.name)
        return passing

    def _boundary(self, nodes: Collection[str]) -> Iterator[str]:
        outputs = {output.name for output in self._graph.output}
        for node in self._graph.node:
            for name in node.output if node.name in nodes else ():
                if name in outputs or any(reader.name not in nodes for reader in self._consumers.get(name, ())):
                    yield name


def remaining(
    names: Collection[str], every: Sequence[str], float_layers: Sequence[str], only: Collection[str] | None = None
) -> list[str]:
    """Names of the layers that are quantized.

    Args:
        names: of those that can be.
        every: names of these and of others, which are in float by a rule.
        float_layers: patterns of names of layers, or of modules with all below them, that stay in float.
        only: names of layers; the others stay in float. None for all.

    Raises:
        UserError: a pattern matches no layer, or nothing is left to be quantized.
    """
    for pattern in float_layers:
        if not any(matches(name, (pattern,)) for name in every):
            raise UserError(
                f"quantization.float_layers: got {pattern!r}, which matches no convolution of the exported "
                f"network; its layers have names such as {', '.join(every[:3])}"
            )
    layers = [name for name in names if not matches(name, float_layers) and (only is None or name in only)]
    if not layers:
        raise UserError("quantization.float_layers: no layer is left to be quantized, expected at least one")
    return layers


def tail(graph: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The end of a network: boxes, scores, masks, labels.

    Returns:
        Names of its last layers, nodes with weights from which no other weights are on the way to an output; and of the
        nodes after them.
    """
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    producers = {name: node for node in graph.node for name in node.output}
    last: set[str] = set()
    after: set[str] = set()
    seen: set[str] = set()
    pending = [output.name for output in graph.output]
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in WEIGHTED and any(part in constants for part in node.input[:2]):
            last.add(node.name)
        else:
            after.add(node.name)
            pending.extend(node.input)
    return frozenset(last), frozenset(after)


def float_parts_of(model: nn.Module) -> tuple[str, ...]:
    """Patterns of the names of the modules that a model declares to stay in float."""
    return tuple(
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, KeepsFloat)
        for part in module.float_parts
    )


def module_of(node: Any) -> str:
    """The path of the module that a node comes from, such as ``backbone.stages.0.conv``.

    Of a convolution into which the exporter folded a norm, it is that of the norm.
    """
    text = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    scopes: list[str] = [scope for scope in ast.literal_eval(text) if scope.startswith(_ROOT)]
    return _SLICED.sub(_index, scopes[-1].removeprefix(_ROOT)) if scopes else str(node.name)


def drop_scopes(model: Any) -> None:
    """Drop the names of modules from the nodes of a network: nothing reads them from a finished file."""
    pending = [model.graph]
    while pending:
        for node in pending.pop().node:
            del node.metadata_props[:]
            pending.extend(entry.g for entry in node.attribute if entry.HasField("g"))  # the branches of an If


def _index(sliced: re.Match[str]) -> str:
    start = 0 if sliced[1] == "None" else int(sliced[1])
    return str(start + int(sliced[2]))


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches a module's name, or that of a module that it is in."""
    parts = name.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(each, pattern) for each in names for pattern in patterns)
