"""A model as it is exported."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from efftasks.export.exit_graphs import EarlyGraph, IfGraph, RestGraph, WholeGraph, exit_of
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import EndsEarly, Exportable, HasExportForm
from efftasks.structures.spec import ExitSpec

__all__ = ["Graph", "UndecodedGraph", "graph_of", "rest_of", "whole_graph"]


class Graph(nn.Module):
    """A model as it is exported: what eager prediction runs, up to rounding."""

    def __init__(self, model: Exportable) -> None:
        super().__init__()
        self.model: Any = _in_export_form(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> decoded tensors, but for what the model does not predict."""
        return tuple(output for output in self.model.infer(images) if output is not None)


class UndecodedGraph(nn.Module):
    """A model as it is exported for runtimes that decode outside of the file."""

    def __init__(self, model: EndsEarly) -> None:
        super().__init__()
        self.model: Any = _in_export_form(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> tensors that the runtime's decoder takes."""
        return tuple(self.model.infer_undecoded(images))


def graph_of(model: nn.Module, decode: str, early_exit: ExitSpec | None = None) -> nn.Module:
    """The module whose forward is exported; of a file in two parts, the first one.

    Args:
        model: fused; it stays as it is.
        decode: ``inside`` or ``outside``, as the description of the file has it.
        early_exit: of the file; None for the whole network.

    Raises:
        UserError: the model has no such form.
    """
    if decode == "outside":
        if not isinstance(model, EndsEarly):
            raise UserError(
                f"{type(model).__name__} has no method infer_undecoded(images), expected a model that ends early"
            )
        return UndecodedGraph(model).eval()
    if early_exit is not None:
        kind = IfGraph if early_exit.form == "if" else EarlyGraph
        return kind(_in_export_form(_with_exit(model))).eval()
    return whole_graph(model).eval()


def whole_graph(model: nn.Module) -> nn.Module:
    """The module whose forward is the whole network with its decoder, without an exit.

    Raises:
        UserError: the model has no such form.
    """
    if exit_of(model) is not None:
        return WholeGraph(_in_export_form(model))
    if not isinstance(model, Exportable):
        raise UserError(f"{type(model).__name__} has no method infer(images), expected a model that can be exported")
    return Graph(model)


def rest_of(model: nn.Module) -> nn.Module:
    """The module behind the exit of a model, the second file of an artifact in two parts.

    Raises:
        UserError: the model has no exit.
    """
    return RestGraph(_in_export_form(_with_exit(model))).eval()


def _with_exit(model: nn.Module) -> nn.Module:
    if exit_of(model) is None:
        raise UserError(f"{type(model).__name__} has no early exit, expected a model with one")
    return model


def _in_export_form(model: Any) -> Any:
    """A copy whose parts compute as they are exported; the model itself where none has such a form."""
    if not any(isinstance(part, HasExportForm) for part in model.modules()):
        return model
    changed = copy.deepcopy(model)
    for part in changed.modules():
        if isinstance(part, HasExportForm):
            part.use_export_form()
    return changed
