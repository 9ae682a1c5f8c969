"""OpenVINO, on the CPU or another of its devices: its own files, and ``.onnx``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError
from efftasks.structures.spec import METADATA_KEY

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BACKEND"]

_DEFAULT = "cpu"
_ONNX_METADATA = ["framework", METADATA_KEY]  # where OpenVINO keeps the metadata of an ONNX file


class _OpenVinoSession:
    """An ``.xml`` file with its ``.bin``, or an ``.onnx`` file, in float32 where the file is.

    Args:
        path: the file.
        threads: threads of an inference on the CPU; None leaves it to OpenVINO.
        provider: the device, one of :func:`_devices`.
    """

    def __init__(self, path: Path, threads: int | None, provider: str = _DEFAULT) -> None:
        import openvino

        core = _core(openvino)
        # Its default precision is bfloat16 where the processor has it.
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None and provider == _DEFAULT:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        fault = "corrupt, or not a file that OpenVINO reads"
        try:
            model = core.read_model(str(path))
            fault = "OpenVINO cannot compile this network"
            self._request = core.compile_model(model, provider.upper(), config).create_infer_request()
        except Exception as error:  # RuntimeError of several libraries, with the place in their source first
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(f"{path}: {fault} ({lines[-1].partition(' Please check')[0]})") from error
        self.ports = tuple(_names(port)[0] for port in model.inputs)
        self.inputs = tuple(name for port in model.inputs for name in _names(port))
        self._outputs = [(i, name) for i, port in enumerate(model.outputs) for name in _names(port)]
        self.outputs = tuple(name for _, name in self._outputs)
        self.metadata: str | None = None
        for place in ([METADATA_KEY], _ONNX_METADATA):
            if model.has_rt_info(place):
                self.metadata = model.get_rt_info(place).value
                break

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.Session` has it."""
        # Without sharing the binding copies every output: of a hundred masks, ten megabytes.
        values = self._request.infer([images], share_inputs=True, share_outputs=True)
        return {name: values[i] for i, name in self._outputs}

    def run_named(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As :class:`efftasks.runtime.backends.base.NamedSession` has it."""
        values = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: values[i] for i, name in self._outputs}


def _names(port: Any) -> list[str]:
    """The names of a port; one that the file gave none has that of its node."""
    return sorted(port.get_names()) or [port.get_node().get_friendly_name()]


@functools.cache
def _core(openvino: Any) -> Any:
    """One core for all files, which lives as long as the process.

    A core takes the place of the stack on which the thread handles signals, and puts the one before it back when it
    goes. Where two go in the order in which they came, that is the freed one of the first, and the next signal, such as
    that of a data loader's process that has ended, ends this process.
    """
    return openvino.Core()


def _devices() -> tuple[str, ...]:
    import openvino

    names = [name.lower() for name in _core(openvino).available_devices]
    return tuple(sorted(names, key=lambda name: name != _DEFAULT))


BACKEND = Backend(
    name="openvino",
    suffix=".xml",
    files=(".xml", ".bin"),
    module="openvino",
    extra="openvino",
    load=_OpenVinoSession,
    also_reads=(".onnx",),
    providers=_devices,
    several_inputs=True,
)
