"""Peak memory: of this process, and of one model in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from efftasks.bench.processes import in_new_process

__all__ = ["peak_rss_mb", "peak_rss_of", "predict", "run_file"]


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process so far in MB (10^6 bytes); None where the system does not tell."""
    # Linux hands ru_maxrss of the parent on to a child, so that a small child of a large parent reads as large;
    # VmHWM starts anew with each program.
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_rss_of(work: Callable[..., object], *arguments: Any) -> float | None:
    """Peak resident memory in MB of a new process that does some work.

    Args:
        work: a function of a module; see :func:`predict` and :func:`run_file`.
        arguments: its arguments.

    Returns:
        The whole process: interpreter, numpy, the runtime and the model. None where the system does not tell.

    Raises:
        WorkError: the process ended before it could tell.
    """
    return in_new_process(f"peak memory of {arguments}", _work_and_measure, work, arguments)


def _work_and_measure(work: Callable[..., object], arguments: tuple) -> float | None:
    work(*arguments)
    return peak_rss_mb()


def predict(path: str, threads: int | None, size: tuple[int, int] | None, backend: str | None) -> None:
    """Load an artifact and predict three times, end to end."""
    import numpy as np

    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(path, backend=backend, threads=threads, size=size)
    for _ in range(3):
        predictor(np.zeros((*predictor.size, 3), np.uint8))


def run_file(engine: str, path: str, size: tuple[int, int], threads: int | None) -> None:
    """Load a file and run it three times."""
    from efftasks.bench.engines import file_call

    call = file_call(engine, path, size, threads)
    for _ in range(3):
        call()
