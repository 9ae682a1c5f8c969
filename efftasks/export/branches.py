"""Constants of the branches of an ONNX network, in the branches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["move_constants_into_branches"]


def move_constants_into_branches(model: Any) -> int:
    """Move constants that one branch of an ``If`` alone reads into that branch.

    ONNX Runtime brings convolutions into the layout of its fast kernels only where their weights are in the same graph.

    Args:
        model: ModelProto; changed in place.

    Returns:
        The number of constants that were moved.
    """
    graph = model.graph
    bodies = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    outside = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    readers: dict[str, list[Any]] = {}
    for body in bodies:
        for name in set(_read(body)):
            readers.setdefault(name, []).append(body)
    kept, moved = [], 0
    for tensor in graph.initializer:
        places = readers.get(tensor.name, [])
        if len(places) == 1 and tensor.name not in outside:
            places[0].initializer.append(tensor)
            moved += 1
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return moved


def _read(graph: Any) -> Iterator[str]:
    """Names that the nodes of a graph, its outputs and the graphs inside it read."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for entry in node.attribute:
            if entry.HasField("g"):
                yield from _read(entry.g)
