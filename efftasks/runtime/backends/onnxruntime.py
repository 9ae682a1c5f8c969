"""ONNX Runtime, on the CPU or another of its execution providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError
from efftasks.structures.spec import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_SUFFIX = "ExecutionProvider"
_DEFAULT = "cpu"
_REMOTE = ("azure",)  # sends requests to a service, and would leave a file to the CPU
_SPIN_MICROSECONDS = "20"  # read by ONNX Runtime 1.24 and newer; older ones spin on

# Of messages of ONNX Runtime 1.18 to 1.32.
_TOO_NEW = {
    "opset": re.compile(r"Opset (\d+) is under development.* till opset (\d+)", re.DOTALL),
    "IR version": re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
}
_NO_ONNX = "INVALID_PROTOBUF"
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : Load model from .*? failed:\s*", re.DOTALL)
_SOURCE = re.compile(r"^/\S+:\d+ .*?\) (?=[A-Z])", re.DOTALL)  # the place in its source


class _OnnxRuntimeSession:
    """An ``.onnx`` file, on the CPU or another execution provider.

    Its threads spin for some microseconds while they wait, and then sleep. On a quiet machine that is as fast as to
    spin on, ONNX Runtime's default, where sleeping at once costs a nano network at 128 px 1.8 times its time. Beside
    one busy program on two cores it takes 0.6 to 0.9 of the default's time, and between two frames it leaves the cores
    alone.

    Args:
        path: the file.
        threads: threads inside an operator; None leaves it to ONNX Runtime (all physical cores).
        provider: one of :func:`_providers`. Operators that it lacks run on the CPU, as ONNX Runtime has it.
    """

    def __init__(self, path: Path, threads: int | None, provider: str = _DEFAULT) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        if threads is not None:
            options.intra_op_num_threads = threads
        names = {_short(name): name for name in onnxruntime.get_available_providers()}
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[names[provider]])
        except Exception as error:  # ONNX Runtime has a dozen classes of its own
            fault = _fault(str(error), onnxruntime.__version__)
            if provider != _DEFAULT:
                fault = f"cannot be loaded on {provider}: {fault}"
            raise UserError(f"{path}: {fault}") from error
        used = _short(self._session.get_providers()[0])
        if used != provider:  # it is built in, but a library or a device is missing
            raise UserError(f"provider: got {provider!r}, which ONNX Runtime cannot start here: it would use {used}")
        self.inputs = self.ports = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self.metadata: str | None = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.inputs[0]: images})))

    def run_named(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.NamedSession` has it."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(inputs))))


def _fault(message: str, version: str) -> str:
    """What is wrong with a file, from the message of ONNX Runtime."""
    for kind, pattern in _TOO_NEW.items():
        match = pattern.search(message)
        if match is not None:
            return (
                f"got {kind} {match[1]}, ONNX Runtime {version} reads up to {match[2]}; update it (pip install "
                "--upgrade onnxruntime), or export the file again with an older --opset"
            )
    reason = _SOURCE.sub("", _PREFIX.sub("", message)).strip().splitlines()
    if _NO_ONNX in message or not reason:
        return f"corrupt, or not an ONNX file ({' '.join(reason)})"
    return f"ONNX Runtime {version} cannot load this network ({reason[0]})"


def _short(name: str) -> str:
    """``CUDAExecutionProvider`` -> ``cuda``."""
    return name.removesuffix(_SUFFIX).lower()


def _providers() -> tuple[str, ...]:
    import onnxruntime

    names = [_short(name) for name in onnxruntime.get_available_providers()]
    return (_DEFAULT, *(name for name in names if name != _DEFAULT and name not in _REMOTE))


BACKEND = Backend(
    name="onnxruntime",
    suffix=".onnx",
    files=(".onnx",),
    module="onnxruntime",
    extra=None,
    load=_OnnxRuntimeSession,
    providers=_providers,
    several_inputs=True,
    new_outputs=True,
)
