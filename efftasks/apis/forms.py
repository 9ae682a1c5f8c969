"""Which form of a model an exporter writes: with its decoder inside, or up to where a runtime's decoder takes over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from torch import nn

from efftasks.export.exporters.base import Exporter
from efftasks.export.graph import UndecodedGraph, whole_graph
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import EndsEarly
from efftasks.structures.spec import ArtifactSpec, OutputSpec, Undecoded

__all__ = ["exported_graph", "exported_spec", "head_of"]


def head_of(cfg: LinkedConfig) -> str:
    """The registered type of the head of a config's model; empty where it has no such part."""
    head = cfg.model.get("head") or cfg.model.get("decode_head") or {}
    kind = head.get("type", "")
    return kind if isinstance(kind, str) else kind.__name__


def exported_spec(model: Any, spec: ArtifactSpec, exporter: Exporter, decode: str | None = None) -> ArtifactSpec:
    """The description of a file of a model, from that of the model with its decoder inside.

    Args:
        model: whose outputs are described.
        spec: of the model with its decoder inside.
        exporter: that writes the file.
        decode: ``inside`` or ``outside`` of the file; None for what the exporter's files are like.

    Raises:
        UserError: the file is to end before its decoder, and the model's cannot be separated; or it is to have it
            inside, and the exporter cannot write it.
    """
    if decode == "inside" and exporter.undecoded:
        raise UserError(
            f"--decode: got 'inside', expected outside: files of --backend {exporter.name} end before their decoder, "
            f"since {exporter.undecoded}"
        )
    spec = replace(spec, input=replace(spec.input, layout=exporter.layout))
    if exporter.undecoded or decode == "outside":
        form = _undecoded(model, exporter, (spec.input.height, spec.input.width))
        place = "inside" if form.decoder is None else "outside"
        spec = replace(spec, outputs=form.outputs, decode=place, decoder=form.decoder)
    return replace(spec, outputs=tuple(_stored(output, exporter) for output in spec.outputs))


def exported_graph(model: Any, exporter: Exporter, size: tuple[int, int]) -> nn.Module:
    """The module whose forward is exported, for files without a description.

    Raises:
        UserError: the exporter's files end before their decoders, and the model's cannot be separated.
    """
    if not exporter.undecoded:
        return whole_graph(model)
    _undecoded(model, exporter, size)
    return UndecodedGraph(model)


def _stored(output: OutputSpec, exporter: Exporter) -> OutputSpec:
    """An output as the exporter's files store it."""
    return replace(output, dtype=exporter.indices) if output.dtype == "int64" else output


def _undecoded(model: Any, exporter: Exporter, size: tuple[int, int]) -> Undecoded:
    reason = f"--backend {exporter.name}: {exporter.undecoded}" if exporter.undecoded else "--decode outside"
    if not isinstance(model, EndsEarly):
        raise UserError(f"{reason}, and {type(model).__name__} declares no end before its decoder")
    try:
        form = model.undecoded(*size)
    except UserError as error:
        raise UserError(f"{reason}, and {error}") from error
    if form.selects and not exporter.selects:
        raise UserError(f"{reason}, and {type(model).__name__} needs top-k and gather in its network: {form.selects}")
    return form
