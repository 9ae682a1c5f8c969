"""A model as it is exported."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from efftasks.structures.protocols import EndsEarly, Exportable

__all__ = ["Graph", "UndecodedGraph"]


class Graph(nn.Module):
    """A model as it is exported: exactly what eager prediction runs."""

    def __init__(self, model: Exportable) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> decoded tensors, but for what the model does not predict."""
        return tuple(output for output in self.model.infer(images) if output is not None)


class UndecodedGraph(nn.Module):
    """A model as it is exported for runtimes that decode outside of the file."""

    def __init__(self, model: EndsEarly) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> tensors that the runtime's decoder takes."""
        return tuple(self.model.infer_undecoded(images))
