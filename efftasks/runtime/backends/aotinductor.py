"""Packages that PyTorch compiled ahead of time, on the CPU: they need PyTorch, but no model in Python.

A package is machine code: it runs on the kind of processor and the version of PyTorch that it was compiled for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError, first_line
from efftasks.structures.spec import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_NAMES_KEY = "names"  # of the package's metadata: {"inputs": [...], "outputs": [...]}


class _AotInductorSession:
    """A ``.pt2`` package, for one image of one size.

    Args:
        path: of the package.
        threads: threads inside an operator, of the whole process; None leaves it to PyTorch.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        import torch
        from torch._inductor import aoti_load_package

        self._torch = torch
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._network = aoti_load_package(str(path))
            described: dict[str, Any] = self._network.get_metadata()
            names = json.loads(described[_NAMES_KEY])
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: corrupt, not written by this package, or compiled for another machine or version of PyTorch "
                f"than {torch.__version__} ({first_line(error)}); export it again"
            ) from error
        if "AVX2" in described.get("AOTI_CPU_ISA", "") and not torch.cpu._is_avx2_supported():
            raise UserError(
                f"{path}: compiled for processors with AVX2, which this one lacks; export it to another format"
            )
        self.inputs = tuple(names["inputs"])
        self.outputs = tuple(names["outputs"])
        self.metadata: str | None = described.get(METADATA_KEY)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it, image by image."""
        import numpy as np

        with self._torch.inference_mode():
            results = [self._run_one(images[i : i + 1]) for i in range(len(images))]
        return {name: np.concatenate([result[i] for result in results]) for i, name in enumerate(self.outputs)}

    def _run_one(self, images: np.ndarray) -> list[np.ndarray]:
        values = self._network(self._torch.from_numpy(images))
        values = [values] if isinstance(values, self._torch.Tensor) else values
        return [value.numpy() for value in values]


BACKEND = Backend(
    name="aotinductor",
    suffix=".pt2",
    files=(".pt2",),
    module="torch",
    extra="aotinductor",
    load=_AotInductorSession,
)
