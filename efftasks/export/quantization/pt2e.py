"""A network in float as PyTorch exports it -> the same in 8-bit integers, by torchao's PT2E flow, for XNNPACK.

XNNPACK computes an operator in integers where its inputs are dequantized right before it and its output is quantized
right after it: signed integers, symmetric ones for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from tqdm import tqdm

from efftasks.export.quantization.layers import matches, remaining
from efftasks.export.quantization.recipe import CalibrationImages, Recipe

__all__ = ["METHODS", "Pt2eQuantizer"]

METHODS = ("minmax",)

_aten: Any = torch.ops.aten
_CONVOLUTIONS = {_aten.conv2d.default: 0, _aten.conv_transpose2d.input: 1}  # -> dimension of the output channels
_WEIGHTED = {*_CONVOLUTIONS, _aten.linear.default, _aten.matmul.default, _aten.addmm.default}
_RELUS = {_aten.relu.default, _aten.relu_.default}
_SUMS = {_aten.add.Tensor, _aten.add_.Tensor}
# Their outputs are some of their inputs, or bounded ones, in integers of the same scale.
_SHARING = {
    _aten.max_pool2d.default,
    _aten.slice.Tensor,
    _aten.hardtanh.default,
    _aten.hardtanh_.default,
    *_RELUS,
}
_ANNOTATION = "quantization_annotation"  # torchao's key
_ROOT = "model."  # the model inside of efftasks.export.graph.Graph
_EPSILON = 2**-12  # the least scale of XNNPACK


class Pt2eQuantizer:
    """Quantizes an exported network; a network is prepared and calibrated for each file.

    Args:
        program: the network in float (ExportedProgram).
        float_parts: patterns of names of modules that stay in float.
        images: for calibration.
        save: (graph in integers, path) -> nothing; writes the file.
    """

    def __init__(
        self,
        program: Any,
        float_parts: Iterable[str],
        images: CalibrationImages,
        save: Callable[[GraphModule, Path], object],
    ) -> None:
        self._program, self._images, self._save = program, images, save
        graph = program.module(check_guards=False).graph
        last, parts = _last_layers(graph), tuple(float_parts)
        every = {layer_of(node): False for node in graph.nodes if _is_convolution(node)}
        for node in graph.nodes:
            if _is_convolution(node) and node in last:
                every[layer_of(node)] = True
        self._all = tuple(every)
        self.kept = tuple(
            name for name, is_last in every.items() if is_last or matches(name, parts)
        )  #: stay in float by the model's own rule
        self.names = tuple(name for name in every if name not in self.kept)  #: can be quantized

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it."""
        layers = remaining(self.names, self._all, recipe.float_layers)
        quantizer = IntegersForXnnpack(layers, recipe.weight_bits)
        with torch.no_grad():
            prepared = prepare_pt2e(self._program.module(check_guards=False), quantizer)
            for image in tqdm(self._images, desc=f"calibrate {recipe.method}", disable=None, leave=False):
                prepared(torch.from_numpy(image))
            if self._images.value_range is not None:  # every byte keeps a value of its own, whatever the images had
                _set_input_range(prepared, self._images.value_range)
            self._save(convert_pt2e(prepared), path)
        return tuple(name for name in (*self.kept, *self.names) if name not in layers)


class IntegersForXnnpack(Quantizer):
    """8-bit signed activations with one scale and zero point, signed weights with a scale for each output channel.

    Convolutions take integers and give integers, those of a ReLU behind them where nothing else reads them. So do
    sums and concatenations of integers, max pooling, slices and clamps. All else is in float.

    Args:
        layers: names of the convolutions.
        weight_bits: how many of the 8 bits of weights are used. XNNPACK's own quantizer never uses -128, since the sum
            of two products with it could overflow on ARM.
    """

    def __init__(self, layers: Collection[str], weight_bits: int = 8) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        limit = 2 ** (weight_bits - 1) - 1
        self._activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_EPSILON),
        )
        self._weights = [
            QuantizationSpec(
                dtype=torch.int8,
                quant_min=-limit,
                quant_max=limit,
                qscheme=torch.per_channel_symmetric,
                ch_axis=axis,
                observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=_EPSILON),
            )
            for axis in (0, 1)
        ]
        self._integers: set[Node] = set()  # nodes that give integers

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark the nodes of a graph."""
        self._integers.clear()
        for node in model.graph.nodes:
            if node in self._integers:  # a ReLU of the node before it
                continue
            if _is_convolution(node) and layer_of(node) in self.layers:
                axis = _CONVOLUTIONS[node.target]
                self._annotate(node, {node.args[0]: self._activation, node.args[1]: self._weights[axis]})
            elif node.target in _SUMS and self._are_integers(node.args[:2]):
                self._annotate(node, dict.fromkeys(node.args[:2], self._activation))
            elif node.target is _aten.cat.default and self._are_integers(node.args[0]):
                self._share(node, node.args[0])
            elif node.target in _SHARING and self._are_integers(node.args[:1]):
                self._share(node, node.args[:1])
        return model

    def validate(self, model: GraphModule) -> None:
        """Every graph can be run."""

    def _are_integers(self, inputs: Iterable[Any]) -> bool:
        return all(isinstance(source, Node) and source in self._integers for source in inputs)

    def _annotate(self, node: Node, inputs: dict[Any, QuantizationSpec]) -> None:
        """Integers into a node, and out of it or of the ReLU behind it."""
        node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)
        user = next(iter(node.users))
        last = user if len(node.users) == 1 and user.target in _RELUS else node
        annotation = last.meta.setdefault(_ANNOTATION, QuantizationAnnotation(_annotated=True))
        annotation.output_qspec = self._activation
        self._integers.add(last)

    def _share(self, node: Node, inputs: Any) -> None:
        """Integers into and out of a node, all of one scale."""
        first, *others = dict.fromkeys(inputs)
        shared = SharedQuantizationSpec((first, node))
        node.meta[_ANNOTATION] = QuantizationAnnotation(
            input_qspec_map={first: self._activation, **dict.fromkeys(others, shared)},
            output_qspec=shared,
            _annotated=True,
        )
        self._integers.add(node)


def layer_of(node: Node) -> str:
    """The name of the layer whose weights a convolution reads, such as ``backbone.stages.0.conv``."""
    weight: Any = node.args[1]
    return str(weight.target).rpartition(".")[0].removeprefix(_ROOT)


def _is_convolution(node: Node) -> bool:
    return node.target in _CONVOLUTIONS and isinstance(node.args[1], Node) and node.args[1].op == "get_attr"


def _last_layers(graph: Any) -> set[Node]:
    """Nodes with weights from which no other weights are on the way to an output: boxes, scores, masks, labels."""
    last: set[Node] = set()
    seen: set[Node] = set()
    pending = [node for node in graph.nodes if node.op == "output"]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target in _WEIGHTED and any(source.op == "get_attr" for source in node.all_input_nodes):
            last.add(node)
        else:
            pending.extend(node.all_input_nodes)
    return last


def _set_input_range(prepared: GraphModule, value_range: tuple[float, float]) -> None:
    """Set the range of the network's input, where it is measured."""
    for observer in _observers(prepared):
        for bound, value in zip(("min_val", "max_val"), value_range):
            getattr(observer, bound).fill_(value)


def _observers(prepared: GraphModule) -> Iterator[Any]:
    """Those of the network's input."""
    for node in prepared.graph.nodes:
        if node.op == "placeholder":
            for user in node.users:
                if user.op == "call_module":
                    yield prepared.get_submodule(user.target)
