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
from efftasks.runtime.backends.base import Session
from efftasks.runtime.backends.table import BACKENDS, find_backend

__all__ = ["TORCH_ENGINES", "engines", "file_call", "session_call", "torch_call"]

TORCH_ENGINES = ("torch", "torch.compile")


def engines() -> tuple[str, ...]:
    """Names of all that can be timed: PyTorch, and the runtimes of files."""
    return (*TORCH_ENGINES, *BACKENDS)


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
    """A call that runs a file and returns its milliseconds; loaded here.

    Args:
        engine: name of a runtime.
        path: the file; its one input is (1, 3, height, width).
        size: (height, width).
        threads: of the runtime; None leaves them to it.

    Raises:
        UserError: the runtime cannot run the file, or is not installed.
    """
    return session_call(find_backend(path, engine).open(path, threads), size)


def session_call(session: Session, size: tuple[int, int], layout: str = "NCHW") -> Callable[[], float]:
    """As :func:`file_call`, of a file that a runtime has loaded; its input is (1, height, width, 3) if NHWC."""
    shape = (1, *size, 3) if layout == "NHWC" else (1, 3, *size)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    return timed(functools.partial(session.run, images))
