"""ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from efftasks.structures.errors import UserError
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec

__all__ = ["OnnxRuntimeSession", "open_session"]

_SPIN_MICROSECONDS = "20"  # read by ONNX Runtime 1.24 and newer; older ones spin on


def open_session(path: str | Path, threads: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU, as everything here runs and times files.

    Its threads spin for some microseconds while they wait, and then sleep. On a quiet machine that is as fast as to
    spin on, ONNX Runtime's default, where sleeping at once costs a nano network at 128 px 1.8 times its time. Beside
    one busy program on two cores it takes 0.6 to 0.9 of the default's time, and between two frames it leaves the cores
    alone.

    Args:
        path: the file.
        threads: threads inside an operator; None leaves it to ONNX Runtime (all physical cores).

    Raises:
        UserError: the file is missing or corrupt.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("running an .onnx file needs onnxruntime; pip install efftasks") from error
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen classes of its own
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: corrupt, or not an ONNX file ({reason})") from error


class OnnxRuntimeSession:
    """An ``.onnx`` file on the CPU.

    Args:
        path: the file.
        threads: as :func:`open_session` has it.

    Raises:
        UserError: the file is missing, corrupt, or does not say what it is.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self._session = open_session(path, threads)
        self.spec = self._read_spec(Path(path))
        self._outputs = [output.name for output in self.spec.outputs]
        for kind, said, there in (
            ("input", [self.spec.input.name], self._session.get_inputs()),
            ("outputs", self._outputs, self._session.get_outputs()),
        ):
            names = [value.name for value in there]
            if not set(said) <= set(names):
                raise UserError(f"{path}: {kind}: its description names {said}, the network has {names}")

    def _read_spec(self, path: Path) -> ArtifactSpec:
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is not None:
            return ArtifactSpec.from_json(text, origin=str(path))
        sidecar = path.with_suffix(".json")
        if sidecar.is_file():
            return ArtifactSpec.load(sidecar)
        raise UserError(
            f"{path}: neither metadata {METADATA_KEY!r} inside nor {sidecar.name} beside it, expected a file exported "
            "by efftasks"
        )

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input float32 (N, 3, H, W) -> output name -> array."""
        values = self._session.run(self._outputs, {self.spec.input.name: images})
        return dict(zip(self._outputs, values))
