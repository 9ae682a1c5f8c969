"""One forward pass of a network on a runtime, as something to time.

Everything runs in float32 on a batch of one random image; zeros would let a fresh network's activations fade to slow
denormal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.bench.latency import timed
from efftasks.runtime.backends.onnxruntime import open_session
from efftasks.structures.errors import UserError

__all__ = ["ENGINES", "FILE_ENGINES", "file_call", "torch_call"]

FILE_ENGINES = ("onnxruntime", "openvino")
ENGINES = ("torch", "torch.compile", *FILE_ENGINES)


def torch_call(
    forward: Callable[[Any], object],
    size: tuple[int, int],
    compiled: bool = False,
    threads: int | None = None,
    device: str = "cpu",
) -> Callable[[], float]:
    """A call that runs ``forward`` in PyTorch and returns its milliseconds.

    Args:
        forward: takes images (1, 3, height, width) on ``device``.
        size: (height, width).
        compiled: through ``torch.compile``; the first call compiles.
        threads: of PyTorch on a CPU, for the whole process; None leaves them.
        device: ``cpu`` or ``cuda``; there, the time is that between two events on the GPU.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, *size, generator=generator).to(device)
    target = torch.compile(forward) if compiled else forward

    def call() -> None:
        with torch.inference_mode():
            target(images)

    if device == "cpu":
        return timed(call)

    def on_gpu() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return on_gpu


def file_call(engine: str, path: str | Path, size: tuple[int, int], threads: int | None = None) -> Callable[[], float]:
    """A call that runs an ONNX file and returns its milliseconds; loaded and prepared here.

    Args:
        engine: one of ``FILE_ENGINES``.
        path: the file; its one input is (1, 3, height, width).
        size: (height, width).
        threads: of the runtime; None leaves them to it.
    """
    images = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    if engine == "onnxruntime":
        return timed(_onnxruntime(str(path), images, threads))
    if engine == "openvino":
        return timed(_openvino(str(path), images, threads))
    raise UserError(f"--backend: got {engine!r}, allowed for files are {', '.join(FILE_ENGINES)}")


def _onnxruntime(path: str, images: np.ndarray, threads: int | None) -> Callable[[], object]:
    session = open_session(path, threads)
    return functools.partial(session.run, None, {session.get_inputs()[0].name: images})


def _openvino(path: str, images: np.ndarray, threads: int | None) -> Callable[[], object]:
    try:
        import openvino
    except ImportError as error:
        raise UserError(
            '--backend openvino needs OpenVINO; install it with: pip install "efftasks[openvino]"'
        ) from error
    core = openvino.Core()
    # Its default precision is bfloat16 where the processor has it.
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = str(threads)
    request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()
    # Without sharing the binding copies every output: of a hundred masks, ten megabytes that the engine has no part in.
    return functools.partial(request.infer, [images], share_inputs=True, share_outputs=True)
