"""From a model trained with fake quantization to one whose export has integers."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx import GraphModule

from efftasks.compression.quantization.part import GraphPart, QuantizedPart, quantized_parts
from efftasks.compression.transform import replace_modules
from efftasks.structures.errors import UserError
from efftasks.structures.spec_parts import QuantizationSpec

__all__ = ["converted", "quantization_of"]


def quantization_of(model: nn.Module) -> QuantizationSpec | None:
    """How the numbers of a model's export are made smaller; None if it stays in float.

    That is so without quantized parts, and before the epoch at which the hook switched fake quantization on.

    Raises:
        UserError: numbers are rounded, but ranges were never measured.
    """
    parts = quantized_parts(model)
    if not any(part.quantizes for part in parts.values()):
        return None
    for name, part in parts.items():
        if not part.is_measured:
            raise UserError(
                f"{name}: fake quantization is on, but some activations have no measured range; train with the hook "
                "QuantizationAware, whose `observe` comes before `quantize`"
            )
    layers = [f"{name}.{layer}" for name, part in parts.items() for layer in part.float_layers]
    return QuantizationSpec(
        weights="int8",
        activations="uint8",
        granularity="per-channel",
        float_layers=tuple(layers),
        weight_bits=next(part.weight_bits for part in parts.values()),
    )


def converted(model: nn.Module) -> nn.Module:
    """A model in evaluation mode without fake quantizers, for export; the model itself if it has none.

    Where they are on, the copy has pairs of quantization and dequantization instead, and integers as weights; outputs
    are the same. Where they are off, the part is in float.
    """
    if not quantized_parts(model):
        return model
    result = copy.deepcopy(model).eval()
    replace_modules(result, {name: _converted(part) for name, part in quantized_parts(result).items()})
    return result


def _converted(part: QuantizedPart) -> GraphPart:
    if part.quantizes:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        part.measure_weights()
        graph = _without_clamps(convert_pt2e(part.graph))
    else:
        graph = _without_quantizers(part.graph)
    return GraphPart(graph, part.assemble, part.specs).eval()


def _without_clamps(graph: GraphModule) -> GraphModule:
    """Remove clamps before a quantization that saturates at the same integers: runtimes do so for ReLU alone."""
    from efftasks.compression.quantization.quantizer import bounds_of

    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.quantized_decomposed.quantize_per_tensor.default:
            continue
        clamp, scale, zero, least, most = node.args[:5]
        bounds = bounds_of(clamp)
        if bounds is None or len(clamp.users) > 1:
            continue
        low, high = (torch.tensor(bound / scale).round().item() + zero for bound in bounds)
        if low <= least and high >= most:
            clamp.replace_all_uses_with(clamp.args[0])
            graph.graph.erase_node(clamp)
    graph.recompile()
    return graph


def _without_quantizers(graph: GraphModule) -> GraphModule:
    for node in graph.graph.nodes:
        if node.op == "call_module":
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph
