"""ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError
from efftasks.structures.spec import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_SPIN_MICROSECONDS = "20"  # read by ONNX Runtime 1.24 and newer; older ones spin on


class _OnnxRuntimeSession:
    """An ``.onnx`` file on the CPU.

    Its threads spin for some microseconds while they wait, and then sleep. On a quiet machine that is as fast as to
    spin on, ONNX Runtime's default, where sleeping at once costs a nano network at 128 px 1.8 times its time. Beside
    one busy program on two cores it takes 0.6 to 0.9 of the default's time, and between two frames it leaves the cores
    alone.

    Args:
        path: the file.
        threads: threads inside an operator; None leaves it to ONNX Runtime (all physical cores).
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a dozen classes of its own
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: corrupt, or not an ONNX file ({reason})") from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self.metadata: str | None = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.inputs[0]: images})))


BACKEND = Backend(
    name="onnxruntime",
    suffix=".onnx",
    files=(".onnx",),
    module="onnxruntime",
    extra=None,
    load=_OnnxRuntimeSession,
)
