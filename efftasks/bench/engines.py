"""One forward pass of a network on a runtime, as something to time.

Everything runs on a batch of one random image, in float32 unless a file takes bytes; zeros would let a fresh network's
activations fade to slow denormal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.bench.latency import timed
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.backends.base import Session
from efftasks.runtime.backends.table import BACKENDS, find_backend
from efftasks.runtime.preprocess import input_buffer

__all__ = ["TORCH_ENGINES", "artifact_call", "engines", "file_call", "random_input", "torch_call"]

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
    images = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    return _session_call(find_backend(path, engine).open(path, threads), images)


def artifact_call(artifact: Artifact, size: tuple[int, int]) -> Callable[[], float]:
    """As :func:`file_call`, of an exported file that is loaded: its input is as its description states.

    A network with an early exit decides at its threshold.
    """
    images = random_input(artifact, size)
    if artifact.exit_threshold is not None:
        return timed(functools.partial(artifact.run_network, images))
    return _session_call(artifact.session, images)


def random_input(artifact: Artifact, size: tuple[int, int]) -> np.ndarray:
    """A network input of one random image, as the description of the file states it."""
    images = input_buffer(1, size, artifact.spec.input)
    random = np.random.default_rng(0)
    is_integer = images.dtype == np.uint8
    images[:] = random.integers(0, 256, images.shape) if is_integer else random.random(images.shape, np.float32)
    return images


def _session_call(session: Session, images: np.ndarray) -> Callable[[], float]:
    """A call that runs a file which a runtime has loaded on one input, and returns its milliseconds."""
    return timed(functools.partial(session.run, images))
