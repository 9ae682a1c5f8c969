"""What a file costs before it runs again and again: its first prediction, in a process of its own."""

from __future__ import annotations

import time
from typing import NamedTuple

from efftasks.bench.memory import peak_rss_mb
from efftasks.bench.processes import in_new_process

__all__ = ["ColdStart", "cold_start"]


class ColdStart(NamedTuple):
    """A first prediction, and the process that made it."""

    milliseconds: float  # to import the runtime, load the file and predict once; Python and numpy are there
    peak_rss_mb: float | None  # of the process: interpreter, numpy, the runtime and the model; None where not told


def cold_start(path: str, backend: str, threads: int | None = None) -> ColdStart:
    """Measure it on a black image of the network's size.

    Args:
        path: an exported file that takes whole images.
        backend: name of the runtime.
        threads: of the runtime; None leaves them to it.

    Raises:
        UserError: the file cannot be run.
        WorkError: the process ended before it was done.
    """
    return in_new_process(f"first prediction of {path}", _first_prediction, path, backend, threads)


def _first_prediction(path: str, backend: str, threads: int | None) -> ColdStart:
    import numpy as np

    start = time.perf_counter()
    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(path, backend, threads)
    predictor(np.zeros((*predictor.size, 3), np.uint8))
    return ColdStart((time.perf_counter() - start) * 1e3, peak_rss_mb())
