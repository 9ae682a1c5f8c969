"""The graphs of parts of a model, with fake quantizers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from efftasks.compression.quantization.part import QuantizedPart
from efftasks.compression.quantization.quantizer import IntegerQuantizer, QuantizerSettings
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import HasSpecs

__all__ = ["captured_parts"]

_CELLS = 4  # of the coarsest map, on a side, in the dry run


class _Call(NamedTuple):
    """What a part was called with, and gave."""

    inputs: tuple[Any, ...]
    outputs: Any


class _Flat(nn.Module):
    """A part with flat tensors in and out: lists and tuples of maps are the same to it."""

    def __init__(self, part: nn.Module, structure: pytree.TreeSpec) -> None:
        super().__init__()
        self.part = part
        self._structure = structure

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        return pytree.tree_leaves(self.part(*pytree.tree_unflatten(tensors, self._structure)))


def captured_parts(
    model: Any, float_layers: Mapping[str, Sequence[str]], settings: QuantizerSettings
) -> dict[str, QuantizedPart]:
    """Quantized parts for modules of a model, which is not changed.

    Maps that one part hands to another have integers, and one scale for both.

    Args:
        model: folded, in evaluation mode, with ``infer`` and ``divisor``.
        float_layers: name of a module, in the order in which they run -> names of layers below it that stay in float.
        settings: of the numbers.

    Raises:
        UserError: a module cannot be exported.
    """
    calls = _recorded(model, list(float_layers))
    on_grid: set[int] = set()  # ids of tensors; ``calls`` keeps them alive
    parts = {}
    for name, layers in float_layers.items():
        module, call = model.get_submodule(name), calls[name]
        graph = _exported(module, call.inputs, name)
        placeholders = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        inputs = zip(placeholders, pytree.tree_leaves(call.inputs), strict=True)
        quantizer = IntegerQuantizer(settings, layers, [key for key, tensor in inputs if id(tensor) in on_grid])
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        results = list(zip(output.args[0], pytree.tree_leaves(call.outputs), strict=True))
        prepared = _prepared(graph, quantizer)
        on_grid |= {id(tensor) for node, tensor in results if node in quantizer.integers}
        specs = module.specs if isinstance(module, HasSpecs) else ()
        parts[name] = QuantizedPart(prepared, _assembler(call.outputs), specs, layers)
    return parts


class _AllCalled(Exception):
    """Ends the dry run: what comes after the parts may be made for another image size."""


def _recorded(model: Any, names: Sequence[str]) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}

    def recorder(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, outputs: Any) -> None:
            calls[name] = _Call(inputs, outputs)
            if len(calls) == len(names):
                raise _AllCalled

        return record

    handles = [model.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
    side = _CELLS * model.divisor
    with torch.no_grad(), contextlib.suppress(_AllCalled):  # two images: a batch of one would be taken for a constant
        model.infer(torch.zeros(2, 3, side, side, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    for name in names:
        if name not in calls:
            raise UserError(f"QuantizeAware.parts: {name!r} is not called for predictions; leave it out")
    return calls


def _assembler(example: Any) -> Callable[[Iterable[Tensor]], Any]:
    """From flat tensors to a structure like the example's."""
    structure = pytree.tree_structure(example)

    def assemble(tensors: Iterable[Tensor]) -> Any:
        return pytree.tree_unflatten(tensors, structure)

    return assemble


def _exported(module: nn.Module, inputs: tuple[Any, ...], name: str) -> GraphModule:
    """The graph of a module, for any number of images of any size."""
    tensors, structure = pytree.tree_flatten(inputs)
    free = torch.export.Dim.AUTO
    axes = tuple({0: free, 2: free, 3: free} if x.dim() == 4 else {0: free} for x in tensors)
    try:
        program = torch.export.export(
            _Flat(module, structure).eval(), tuple(tensors), dynamic_shapes=(axes,), strict=False
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"QuantizeAware: {name!r} ({type(module).__name__}) cannot be captured as a graph "
            f"({type(error).__name__}: {reason}); leave it out of `parts`"
        ) from error
    return program.module(check_guards=False)  # type: ignore[return-value]


def _prepared(graph: GraphModule, quantizer: IntegerQuantizer) -> GraphModule:
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    graph.graph.set_codegen(CodeGen())  # flat tensors need no structures of inputs, copies of which warn
    return prepare_qat_pt2e(graph, quantizer)
