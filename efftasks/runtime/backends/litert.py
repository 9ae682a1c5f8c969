"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.runtime.backends.base import Backend, check_one_input
from efftasks.structures.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_NO_FILE = "Flatbuffer"  # of LiteRT's message, where it cannot read one


class _LiteRtSession:
    """A ``.tflite`` file on the CPU, by XNNPACK where it has the operator.

    The names of inputs and outputs are those of the file's signature, its first one; a tensor's own name has suffixes
    of the converter.

    Args:
        path: the file.
        threads: threads inside a layer; None leaves it to LiteRT, which takes one.
    """

    metadata: str | None = None

    def __init__(self, path: Path, threads: int | None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            runner = self._interpreter.get_signature_runner(next(iter(self._interpreter.get_signature_list()), None))
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        except (ValueError, RuntimeError) as error:
            reason = first_line(error)
            fault = (
                "corrupt, or not a file that LiteRT reads" if _NO_FILE in reason else "LiteRT cannot load this network"
            )
            raise UserError(f"{path}: {fault} ({reason}); export it again") from error
        check_one_input(path, tuple(inputs))
        self._input = next(iter(inputs.values()))["index"]
        self._outputs = {name: detail["index"] for name, detail in outputs.items()}
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it, image by image: files have a batch of one."""
        import numpy as np

        results = [self._run_one(images[i : i + 1]) for i in range(len(images))]
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([result[name] for result in results]) for name in self.outputs}

    def _run_one(self, image: np.ndarray) -> dict[str, Any]:
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


BACKEND = Backend(
    name="litert",
    suffix=".tflite",
    files=(".tflite",),
    module="ai_edge_litert",
    extra="litert",
    load=_LiteRtSession,
    new_outputs=True,  # `get_tensor` copies
)
