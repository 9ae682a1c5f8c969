"""What gets integers in an exported graph, for torchao's PT2E flow.

Chosen for ONNX Runtime, which runs a convolution in integers only between a DequantizeLinear of each input and a
QuantizeLinear of its output. torchao's own quantizer for x86 leaves the summands of sums in float, for oneDNN.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantize, MovingAverageMinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

__all__ = ["FirstRange", "IntegerQuantizer", "QuantizerSettings", "WeightRange", "bounds_of", "layer_of"]

_aten: Any = torch.ops.aten
_RELUS = {_aten.relu.default, _aten.relu_.default}
_CLAMPS = {_aten.clamp.default, _aten.clamp_.default}
_HARDTANHS = {_aten.hardtanh.default, _aten.hardtanh_.default}
_JOINTS = {_aten.add.Tensor, _aten.add_.Tensor, _aten.cat.default}  # integers of several scales -> of a new one
# Their outputs are some of their inputs, and keep the scale.
_SELECTIONS = {_aten.max_pool2d.default, _aten.slice.Tensor, _aten.upsample_nearest2d.vec}
_SPLITS = {_aten.chunk.default, _aten.split.Tensor, _aten.split_with_sizes.default}
_ANNOTATION = "quantization_annotation"  # torchao's key


@dataclass(frozen=True)
class QuantizerSettings:
    """How numbers become integers.

    Attributes:
        weight_bits: of the 8 bits of weights, how many are used: 7 or 8.
        linear: whether linear layers get integers, too.
        momentum: the share of a batch in the moving averages of the ranges of activations.
    """

    weight_bits: int = 7
    linear: bool = False
    momentum: float = 0.01


class FirstRange(FakeQuantize):
    """Measures the first tensor after it was enabled, no others.

    torchao calls it again for each selection of that tensor, whose range is smaller.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        result: Tensor = super().forward(x)
        self.disable_observer()
        return result


class WeightRange(PerChannelMinMaxObserver):
    """The range of the current weights of each output channel, independent of former weights.

    So it is right for averaged (EMA) weights, too, and needs no state.
    """

    def forward(self, x_orig: Tensor) -> Tensor:
        """Weights (out, ...), unchanged."""
        low, high = torch.aminmax(x_orig.detach().flatten(1), dim=1)
        self.min_val.resize_(low.shape).copy_(low)
        self.max_val.resize_(high.shape).copy_(high)
        return x_orig


class IntegerQuantizer(Quantizer):
    """8-bit unsigned activations with one scale and zero point, signed weights with a scale for each output channel.

    Convolutions, and with ``linear`` linear layers, take integers and give integers. A clamp after one (ReLU, ReLU6)
    belongs to it if its range has 0, as every range of integers: then saturation does what the clamp does.
    Sums, max pooling, slices and nearest upsampling of integers give integers, and so do concatenations of integers
    with anything. All else is in float.

    Args:
        settings: of the numbers.
        float_layers: names of layers in float.
        integer_inputs: names of placeholders that get integers from another graph.

    Attributes:
        integers: the nodes that give integers, after :meth:`annotate`.
    """

    def __init__(
        self, settings: QuantizerSettings, float_layers: Collection[str] = (), integer_inputs: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.float_layers, self.integer_inputs = set(float_layers), set(integer_inputs)
        self.layers = {_aten.conv2d.default, *([_aten.linear.default] if settings.linear else [])}
        self.integers: set[Node] = set()
        self._foreign: set[Node] = set()  # of them those with the scale of another graph, which has quantized them
        limit = 2 ** (settings.weight_bits - 1)
        average = MovingAverageMinMaxObserver.with_args(averaging_constant=settings.momentum)
        self.activation = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=FirstRange.with_args(observer=average),
        )
        self.weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-limit,
            quant_max=limit - 1,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=WeightRange),
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark the nodes of a graph."""
        for node in model.graph.nodes:
            if node.op == "placeholder" and node.name in self.integer_inputs:
                self.integers.add(node)
                self._foreign.add(node)
            elif node.target in self.layers:
                # A kernel that the graph computes has no range of its own.
                if node.args[1].op == "get_attr" and layer_of(node) not in self.float_layers:
                    self._annotate(node, node.args[:1], {node.args[1]: self.weight})
            elif node.target in _JOINTS or bounds_of(node) is not None:
                inputs = _tensors(node)
                enough = any if node.target is _aten.cat.default else all  # copies are cheaper in integers
                if node not in self.integers and enough(x in self.integers for x in inputs):
                    self._annotate(node, inputs)
            elif node.target in _SELECTIONS and node.args[0] in self.integers:
                self._share(node, node.args[0])
            elif node.target in _SPLITS and node.args[0] in self.integers:
                for part in node.users:
                    self._share(part, node.args[0])
        return model

    def validate(self, model: GraphModule) -> None:
        """Every graph can be run."""

    def _annotate(self, node: Node, inputs: Any, weights: dict[Any, QuantizationSpec] | None = None) -> None:
        """Integers into a node, and out of it or of the clamp after it."""
        activations = {x: self.activation for x in inputs if x not in self._foreign}
        node.meta[_ANNOTATION] = QuantizationAnnotation(
            input_qspec_map={**activations, **(weights or {})}, _annotated=True
        )
        user = next(iter(node.users))
        last = user if len(node.users) == 1 and _has_zero(bounds_of(user)) else node
        annotation = last.meta.setdefault(_ANNOTATION, QuantizationAnnotation(_annotated=True))
        annotation.output_qspec = self.activation
        self.integers.add(last)

    def _share(self, node: Node, source: Any) -> None:
        """Integers out of a node, of its input's scale."""
        self.integers.add(node)
        if source in self._foreign:
            self._foreign.add(node)
        else:
            spec = SharedQuantizationSpec(source)
            node.meta[_ANNOTATION] = QuantizationAnnotation(output_qspec=spec, _annotated=True)


def _tensors(node: Node) -> Any:
    """The inputs of a sum, a concatenation or a clamp."""
    if node.target is _aten.cat.default:
        return node.args[0]
    return node.args[:1] if bounds_of(node) is not None else node.args[:2]


def bounds_of(node: Node) -> tuple[float, float] | None:
    """The least and largest output of a clamp; None for another node."""
    if node.target in _RELUS:
        return 0.0, math.inf
    if node.target not in _CLAMPS | _HARDTANHS:
        return None
    omitted = (-1.0, 1.0) if node.target in _HARDTANHS else (None, None)
    arguments: list[Any] = [*node.args[1:], *omitted[len(node.args) - 1 :]]
    low, high = arguments
    return -math.inf if low is None else low, math.inf if high is None else high


def _has_zero(bounds: tuple[float, float] | None) -> bool:
    return bounds is not None and bounds[0] <= 0 <= bounds[1]


def layer_of(node: Node) -> str:
    """The name of the layer whose weights a node of a convolution or linear layer reads, below the captured part."""
    weight: Any = node.args[1]
    return str(weight.target).partition(".")[2].rpartition(".")[0]
