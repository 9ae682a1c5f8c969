"""Peak memory: of this process, and of one model in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from efftasks.structures.errors import WorkError

__all__ = ["peak_rss_mb", "peak_rss_of_artifact"]


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


def peak_rss_of_artifact(
    path: str, threads: int | None = None, size: tuple[int, int] | None = None, backend: str | None = None
) -> float | None:
    """Peak resident memory in MB of a new process that loads an artifact and predicts three times.

    Args:
        path: the artifact.
        threads: of the runtime; None leaves it to the runtime.
        size: (height, width) of the network input; None takes the artifact's.
        backend: name of the runtime; None takes the one for the file.

    Returns:
        The whole process: interpreter, numpy, OpenCV, the runtime and the model. None where the system does not tell.

    Raises:
        WorkError: the process ended before it could tell.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_predict_and_tell, path, threads, size, backend).result()
        except RuntimeError as error:  # BrokenProcessPool: killed, mostly for want of memory
            raise WorkError(f"{path}: the process that measures its memory ended early ({error})") from error


def _predict_and_tell(
    path: str, threads: int | None, size: tuple[int, int] | None, backend: str | None
) -> float | None:
    import numpy as np

    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(path, backend=backend, threads=threads, size=size)
    for _ in range(3):
        predictor(np.zeros((*predictor.size, 3), np.uint8))
    return peak_rss_mb()
