"""Modules that run an exported graph in the place of a part of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from efftasks.structures.features import FeatureSpec

__all__ = ["GraphPart", "QuantizedPart", "quantized_parts"]


class GraphPart(nn.Module):
    """A part of a model as an exported graph, in float32, called like the part.

    The graph is the same in training and evaluation. torchao's graphs refuse to be switched, so ``train`` and ``eval``
    stop here.

    Args:
        graph: flat tensors -> flat tensors.
        assemble: flat tensors -> the part's outputs.
        specs: the part's, if it has any: a backbone's or neck's.
    """

    def __init__(
        self, graph: GraphModule, assemble: Callable[[Iterable[Tensor]], Any], specs: Sequence[FeatureSpec] = ()
    ) -> None:
        super().__init__()
        self.graph = graph
        self.specs = tuple(specs)
        self.assemble = assemble

    @property
    def divisor(self) -> int:
        """Of a backbone: sides of the input are multiples of this, in pixels."""
        return max(spec.stride for spec in self.specs)

    def train(self, mode: bool = True) -> GraphPart:
        """Set the mode of this module alone."""
        self.training = mode
        return self

    def forward(self, *inputs: Any) -> Any:
        """What the part takes and gives; in float32 whatever autocast says."""
        tensors = pytree.tree_leaves(inputs)
        kind = tensors[0].device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                outputs = self.graph(*(x.float() for x in tensors))
        else:
            outputs = self.graph(*tensors)
        return self.assemble(outputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GraphPart:
        """Also move what the graph makes itself, such as positions: exporting wrote a device into it."""
        super()._apply(fn, recurse)
        device = next(self.parameters()).device
        nodes = [node for node in self.graph.graph.nodes if "device" in node.kwargs]
        for node in nodes:
            node.kwargs = {**node.kwargs, "device": device}
        if nodes:
            self.graph.recompile()
        return self


class QuantizedPart(GraphPart):
    """A part with torchao's fake quantizers on its weights and activations.

    Weights have the range of their current values, always. Activations have a moving average, which is measured in
    training while ``observes``. Until :meth:`set_phase` says otherwise, the part is in float and measures nothing.

    Args:
        graph: prepared by torchao.
        assemble: flat tensors -> the part's outputs.
        specs: see :class:`GraphPart`.
        float_layers: layers of the part that have no integers, for descriptions.

    Attributes:
        observes: whether ranges of activations are measured in training.
    """

    def __init__(
        self,
        graph: GraphModule,
        assemble: Callable[[Iterable[Tensor]], Any],
        specs: Sequence[FeatureSpec] = (),
        float_layers: Sequence[str] = (),
    ) -> None:
        super().__init__(graph, assemble, specs)
        self.float_layers = tuple(float_layers)
        self.observes = False
        nodes = [node for node in graph.graph.nodes if node.op == "call_module"]
        weights = {node.target: node.args[0].target for node in nodes if node.args[0].op == "get_attr"}
        self._weights: dict[str, str] = weights  # name of a fake quantizer -> of its weights
        self._activations = list(dict.fromkeys(node.target for node in nodes if node.target not in weights))
        self.measure_weights()
        self.set_phase(observe=False, quantize=False)

    def set_phase(self, observe: bool, quantize: bool) -> None:
        """Whether ranges of activations are measured in training, and whether numbers are rounded to the grids."""
        self.observes = observe
        for quantizer in self._quantizers(*self._weights, *self._activations):
            quantizer.enable_fake_quant(quantize)

    @property
    def quantizes(self) -> bool:
        """Whether numbers are rounded."""
        return any(bool(quantizer.fake_quant_enabled) for quantizer in self._quantizers(*self._weights))

    def activations(self) -> list[Any]:
        """The fake quantizers of activations. torchao names one again for each selection of its tensor."""
        return list({id(quantizer): quantizer for quantizer in self._quantizers(*self._activations)}.values())

    @property
    def is_measured(self) -> bool:
        """Whether all activations have a range."""
        return all(bool(quantizer.activation_post_process.min_val.isfinite()) for quantizer in self.activations())

    def measure_weights(self) -> None:
        """Set the ranges of the current weights."""
        for name, weight in self._weights.items():
            owner, _, key = weight.rpartition(".")
            for quantizer in self._quantizers(name):
                quantizer(getattr(self.graph.get_submodule(owner), key))

    @property
    def weight_bits(self) -> int:
        """How many bits the weights use."""
        return max(
            (int(quantizer.quant_max).bit_length() + 1 for quantizer in self._quantizers(*self._weights)), default=8
        )

    def copy_ranges(self, other: QuantizedPart) -> None:
        """Take the ranges of activations of a copy of this part."""
        for own, source in zip(self.activations(), other.activations(), strict=True):
            own.load_state_dict(source.state_dict())

    def forward(self, *inputs: Any) -> Any:
        """See :class:`GraphPart`."""
        for quantizer in self.activations():
            quantizer.enable_observer(self.training and self.observes)
        return super().forward(*inputs)

    def _quantizers(self, *names: str) -> Iterator[Any]:
        return (self.graph.get_submodule(name) for name in names)


def quantized_parts(model: nn.Module) -> dict[str, QuantizedPart]:
    """The quantized parts of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedPart)}
