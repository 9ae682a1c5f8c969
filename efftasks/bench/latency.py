"""Latency of several callables, interleaved in one process, so that a noisy machine is unfair to none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

__all__ = ["LatencyStats", "measure", "measure_times", "summarise", "timed"]


@dataclass(frozen=True)
class LatencyStats:
    """Milliseconds over ``runs`` calls."""

    runs: int
    mean: float
    p50: float
    p90: float
    p99: float
    minimum: float
    iqr: float  # p75 - p25


def summarise(milliseconds: np.ndarray) -> LatencyStats:
    """Statistics of single times (runs,) in ms."""
    p25, p50, p75, p90, p99 = np.percentile(milliseconds, [25, 50, 75, 90, 99]).tolist()
    return LatencyStats(
        runs=len(milliseconds),
        mean=float(milliseconds.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        minimum=float(milliseconds.min()),
        iqr=p75 - p25,
    )


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """A call that returns its own milliseconds.

    Args:
        call: what to time.
        clock: seconds; another one for tests.
    """

    def run() -> float:
        start = clock()
        call()
        return (clock() - start) * 1e3

    return run


def measure(calls: Mapping[str, Callable[[], float]], warmup: int = 10, runs: int = 100) -> dict[str, LatencyStats]:
    """Run every call ``runs`` times, in turn; see :func:`measure_times`."""
    return {name: summarise(times) for name, times in measure_times(calls, warmup, runs).items()}


def measure_times(calls: Mapping[str, Callable[[], float]], warmup: int = 10, runs: int = 100) -> dict[str, np.ndarray]:
    """Run every call ``runs`` times, in turn.

    Each turn begins with one call that does not count: the others have taken the caches meanwhile, and the time
    measured is that of a model that runs again and again.

    Args:
        calls: name -> call that returns its milliseconds, see :func:`timed`.
        warmup: turns of each before that do not count.
        runs: turns of each that count.

    Returns:
        Milliseconds (runs,) of each; those of one turn are at the same place.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in tqdm(range(warmup + runs), desc="measuring", leave=False, disable=None):  # silent where nobody watches
        for name, call in calls.items():
            call()
            milliseconds = call()
            if i >= warmup:
                times[name].append(milliseconds)
    return {name: np.array(values) for name, values in times.items()}
