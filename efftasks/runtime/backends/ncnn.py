"""ncnn on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.runtime.backends.base import Backend, check_one_input
from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

# By default ncnn stores and computes in 16 bits where the processor can.
_HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")


class _NcnnSession:
    """A ``.param`` file with its ``.bin``, on the CPU. It computes in float32, whatever the weights are stored in.

    The format has neither a batch nor room for a description.

    Args:
        path: of the ``.param``.
        threads: threads inside a layer; None leaves it to ncnn.
    """

    metadata: str | None = None

    def __init__(self, path: Path, threads: int | None) -> None:
        import ncnn

        self._net = ncnn.Net()
        self._array = ncnn.Mat
        options = self._net.opt
        for name in _HALF:
            setattr(options, name, False)
        if threads is not None:
            options.num_threads = threads
        self._net.opt = options
        for part, load in ((path, self._net.load_param), (path.with_suffix(".bin"), self._net.load_model)):
            if load(str(part)) != 0:
                raise UserError(f"{part}: corrupt, or not a file that ncnn reads; export it again")
        self.inputs = tuple(self._net.input_names())
        check_one_input(path, self.inputs)
        self.outputs = tuple(self._net.output_names())

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it, image by image."""
        import numpy as np

        results = [self._run_one(image) for image in images]
        return {name: np.stack([result[name] for result in results]) for name in self.outputs}

    def _run_one(self, image: np.ndarray) -> dict[str, Any]:
        import numpy as np

        extractor = self._net.create_extractor()
        extractor.input(self.inputs[0], self._array(image))
        values = {}
        for name in self.outputs:  # by name: their order is not that of the model
            status, value = extractor.extract(name)
            if status != 0:
                raise RuntimeError(f"ncnn cannot compute {name} (status {status})")
            values[name] = np.asarray(value)
        return values


BACKEND = Backend(
    name="ncnn",
    suffix=".param",
    files=(".param", ".bin"),
    module="ncnn",
    extra="ncnn",
    load=_NcnnSession,
    new_outputs=True,
)
