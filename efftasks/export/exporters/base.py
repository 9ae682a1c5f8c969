"""What an exporter is: what it writes, and how. Standard library only."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from efftasks.structures.spec import ArtifactSpec

__all__ = ["Export", "Exporter", "WriteGraph"]


class Export(Protocol):
    """Writes a model as an artifact."""

    def __call__(self, model: nn.Module, spec: ArtifactSpec, path: Path, *, opset: int) -> Path:
        """Write it.

        Args:
            model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``.
            spec: what the file is; it goes into the file where its format has room.
            path: where to, with the suffix of the exporter's runtime.
            opset: of ONNX, for exporters that write it or go through it.

        Returns:
            The path.

        Raises:
            UserError: the model or the description cannot be exported.
            WorkError: the export failed.
        """
        ...


class WriteGraph(Protocol):
    """Writes what a module does, without a description: what is timed, and nothing else."""

    def __call__(self, module: nn.Module, images: Tensor, path: Path) -> Path:
        """Write what the module does with images (B, 3, H, W).

        Raises:
            WorkError: the export failed.
        """
        ...


@dataclass(frozen=True)
class Exporter:
    """A way from a model to a file.

    Attributes:
        name: as ``efftasks export --backend`` and the description of a file have it.
        backend: name of the runtime whose files it writes; that one verifies them.
        precisions: what it can write, the default first.
        export: writes an artifact.
        write_graph: writes a module without a description.
        write_metadata: (path, description) -> puts the description into the file, in place of the one there; does
            nothing where the format has no room for one.
        modules: what it imports beside PyTorch.
        extra: the extra of this package that installs them.
    """

    name: str
    backend: str
    precisions: tuple[str, ...]
    export: Export
    write_graph: WriteGraph
    write_metadata: Callable[[Path, ArtifactSpec], None]
    modules: tuple[str, ...]
    extra: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of its modules are not installed."""
        return tuple(name for name in self.modules if importlib.util.find_spec(name) is None)

    @property
    def available(self) -> bool:
        """Whether it can run here."""
        return not self.missing

    def check(self, precision: str) -> None:
        """Whether it can write a file of this precision here.

        Raises:
            UserError: it cannot, or what it needs is not installed.
        """
        if precision not in self.precisions:
            raise UserError(
                f"--precision: got {precision!r}, expected one of {', '.join(self.precisions)}: what --backend "
                f"{self.name} writes"
            )
        if not self.available:
            raise UserError(
                f"--backend {self.name} needs {' and '.join(self.missing)}, which this Python lacks: "
                f"pip install 'efftasks[{self.extra}]'"
            )
