"""The ways of a file with an early exit, as something to time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from efftasks.bench.latency import timed
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.exits import ALWAYS, NEVER

__all__ = ["Way", "at_threshold", "ways"]

_GOLDEN = (5**0.5 - 1) / 2

Way = tuple[str, float, Callable[[], float]]  # what it is, the share of calls that leave early, a call in milliseconds


def ways(artifact: Artifact, images: np.ndarray) -> Iterator[Way]:
    """The exit taken, the whole network, and both as often as the test data had them where the sidecar states that.

    Args:
        artifact: with an exit.
        images: a network input.
    """

    def network() -> object:
        return artifact.run_network(images)

    early_call, full_call = (at_threshold(artifact, threshold, network) for threshold in (ALWAYS, NEVER))
    yield "exit taken", 1.0, timed(early_call)
    yield "whole network", 0.0, timed(full_call)
    rate = artifact.spec.verify.get("exit_rate")
    if isinstance(rate, (int, float)):
        yield "as on the test data", float(rate), timed(_mixed(early_call, full_call, float(rate)))


def at_threshold(artifact: Artifact, threshold: float, call: Callable[[], object]) -> Callable[[], object]:
    """A call at a threshold of its own: those of an artifact take turns."""

    def run() -> object:
        artifact.exit_threshold = threshold
        return call()

    return run


def _mixed(early_call: Callable[[], object], full_call: Callable[[], object], rate: float) -> Callable[[], object]:
    """A call that is this often the first one: every second of its calls, too, since each of those is timed alone."""
    steps = count()
    return lambda: early_call() if next(steps) * _GOLDEN % 1 < rate else full_call()
