"""Latency of several callables, interleaved in one process, so that a noisy machine is unfair to none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["LatencyStats", "measure", "summarise"]


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


def measure(
    calls: Mapping[str, Callable[[], object]],
    warmup: int = 10,
    runs: int = 100,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, LatencyStats]:
    """Time every callable ``runs`` times, in turn.

    Args:
        calls: name -> what to time.
        warmup: untimed calls of each before.
        runs: timed calls of each.
        clock: seconds; another one for tests.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup):
        for call in calls.values():
            call()
    for _ in range(runs):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append((clock() - start) * 1e3)
    return {name: summarise(np.array(values)) for name, values in times.items()}
