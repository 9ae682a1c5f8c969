"""The ways of a file with an early exit, of an artifact that says which one was taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from efftasks.bench.exit_rows import ways


class Recording:
    """An artifact that keeps the thresholds it was run at."""

    def __init__(self, **verify: Any) -> None:
        self.exit_threshold = 0.5
        self.spec = SimpleNamespace(verify=verify)
        self.thresholds: list[float] = []

    def run_network(self, images: np.ndarray) -> None:
        self.thresholds.append(self.exit_threshold)


def test_the_ends_are_the_exit_and_the_whole_network():
    artifact: Any = Recording()
    rows = list(ways(artifact, np.zeros(1)))
    assert [(kind, rate) for kind, rate, _ in rows] == [("exit taken", 1.0), ("whole network", 0.0)]
    for _, _, call in (*rows, *reversed(rows)):
        assert call() >= 0
    assert artifact.thresholds == [0, 2, 2, 0]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_mean_takes_the_exit_as_often_as_the_test_data_in_timed_and_untimed_calls(rate):
    artifact: Any = Recording(exit_rate=rate)
    _, _, (kind, stated, call) = ways(artifact, np.zeros(1))
    assert (kind, stated) == ("as on the test data", rate)
    for _ in range(400):
        call()
    exits = np.array(artifact.thresholds) == 0
    for every in (exits, exits[::2], exits[1::2]):
        assert every.mean() == pytest.approx(rate, abs=0.02)
