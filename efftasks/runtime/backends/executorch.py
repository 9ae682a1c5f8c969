"""ExecuTorch on the CPU, by its Python runtime, which needs PyTorch."""

from __future__ import annotations

import json
import logging
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError
from efftasks.structures.spec import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_METHOD = "forward"


class _ExecuTorchSession:
    """A ``.pte`` file on the CPU: XNNPACK computes what it can, ExecuTorch's own operators the rest.

    The file holds one image of one size, and no names: they are those of the description inside.

    Args:
        path: the file.
        threads: threads inside a layer; None leaves it to ExecuTorch. It has one number for the whole process, which
            cannot change while a file is loaded: what is loaded keeps the threads that it was loaded with.
    """

    _loaded: ClassVar[weakref.WeakSet[_ExecuTorchSession]] = weakref.WeakSet()  # the process's threads are theirs

    def __init__(self, path: Path, threads: int | None) -> None:
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)  # of libraries that it imports, of their own extensions
        try:
            import torch
            from executorch.runtime import Runtime
        finally:
            logging.disable(level)
        if threads is not None:
            self._set_threads(threads)
        self._tensor = torch.from_numpy
        try:
            self._program = Runtime.get().load_program(path)
            names = self._program.method_names
            method = self._program.load_method(_METHOD) if _METHOD in names else None
            self.metadata: str | None = None
            if METADATA_KEY in names:
                (self.metadata,) = self._program.load_method(METADATA_KEY).execute(())
        except Exception as error:  # RuntimeError, whatever the fault
            raise UserError(f"{path}: corrupt, or not a file that ExecuTorch reads ({error})") from error
        if method is None:
            raise UserError(f"{path}: its methods are {', '.join(sorted(names))}, expected {_METHOD!r} among them")
        self._method: Any = method
        meta = self._method.metadata
        self.inputs, self.outputs = _names(self.metadata, meta.num_inputs(), meta.num_outputs())
        self._loaded.add(self)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it, image by image."""
        import numpy as np

        results = [self._method.execute((self._tensor(image[None]),)) for image in images]
        if len(results) == 1:
            return {name: value.numpy() for name, value in zip(self.outputs, results[0])}
        columns = zip(self.outputs, zip(*results))
        return {name: np.concatenate([value.numpy() for value in values]) for name, values in columns}

    @classmethod
    def _set_threads(cls, threads: int) -> None:
        """Set those of the process.

        Raises:
            UserError: a file is loaded that has other ones, which would be taken from it.
        """
        from executorch.extension.pybindings import portable_lib

        current = portable_lib._threadpool_get_thread_count()
        if threads == current:
            return
        if cls._loaded:
            raise UserError(
                f"threads: got {threads}, expected {current}: ExecuTorch has one number of threads for a process, and "
                "a file is loaded with that one; give all files the same, or load them in processes of their own"
            )
        portable_lib._unsafe_reset_threadpool(threads)


def _names(metadata: str | None, inputs: int, outputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of inputs and outputs, in the order of the network; made up where no description has them."""
    if metadata is None:
        return tuple(f"input{i}" for i in range(inputs)), tuple(f"output{i}" for i in range(outputs))
    description = json.loads(metadata)
    return (description["input"]["name"],), tuple(output["name"] for output in description["outputs"])


BACKEND = Backend(
    name="executorch",
    suffix=".pte",
    files=(".pte",),
    module="executorch",
    extra="executorch",
    load=_ExecuTorchSession,
)
