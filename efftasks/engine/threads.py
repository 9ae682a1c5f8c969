"""The number of PyTorch's threads, adapted to the load of other programs on the machine.

The threads of a parallel loop wait, spinning, for the last of them. When another program takes the core of one, all
others wait for it: one busy browser made a training step on two cores four to ten times slower, but not with a single
thread. Threads that sleep while they wait (``OMP_WAIT_POLICY=passive``) do not help: on an idle machine they made the
same step 1.9 times slower, since waking a thread costs as much as a small operator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["FairThreads", "Load", "ThreadCount", "free_workers", "read_load"]

_FIXED_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

_MAX_WORKERS = 4


class Load(NamedTuple):
    """Counters in seconds; only differences between two readings have a meaning."""

    wall: float  # clock time
    waiting: float  # for a core, summed over the threads of this process
    idle: float  # summed over the cores of this process


class ThreadCount:
    """The number of threads for a machine under load: one less for each thread that waits for a core.

    The number grows again when a core is idle. If a thread then has to wait at once, the time until the next attempt is
    doubled.

    Args:
        maximum: number of threads on an idle machine.

    Attributes:
        count: the current number.
    """

    WAITING, IDLE = 0.3, 0.7  # thresholds, in cores
    FIRST_BREAK, LONGEST_BREAK = 5.0, 300.0  # seconds

    def __init__(self, maximum: int) -> None:
        self.maximum = self.count = maximum
        self._break = self.FIRST_BREAK
        self._changed = float("-inf")

    def update(self, before: Load, now: Load) -> int:
        """Update the number from two readings, and return it."""
        seconds = now.wall - before.wall
        waiting, idle = (now.waiting - before.waiting) / seconds, (now.idle - before.idle) / seconds
        if waiting > self.WAITING and self.count > 1:
            failed_at_once = now.wall - self._changed < self.FIRST_BREAK
            self._break = min(2 * self._break, self.LONGEST_BREAK) if failed_at_once else self.FIRST_BREAK
            self.count = max(1, self.count - max(1, round(waiting)))
            self._changed = now.wall
        elif idle > self.IDLE and self.count < self.maximum and now.wall - self._changed >= self._break:
            self.count += 1
            self._changed = now.wall
        return self.count


def free_workers(processes: int = 1) -> int:
    """The number of data loader workers for each of ``processes`` training processes.

    On a CPU they get the cores that PyTorch's threads do not use. If there are none, the training process loads the
    data itself: a worker would take a core from one of the threads, which on two cores costs more than the loading (a
    step at 128 px: 0.23 s with a worker, 0.18 s without).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return min(_MAX_WORKERS, max(1, cores // processes))
    return min(_MAX_WORKERS, max(0, cores // processes - torch.get_num_threads()))


def read_load() -> Load | None:
    """Read the counters of Linux's scheduler; None on other systems, or in containers that hide them."""
    try:
        waiting = sum(_waited(task) for task in Path("/proc/self/task").iterdir())
        cores = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        ticks = sum(int(line[4]) for line in lines if line[0] in cores)
        return Load(time.monotonic(), waiting / 1e9, ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _waited(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[1])
    except FileNotFoundError:
        if task.is_dir():
            raise
        return 0  # the thread has just ended


class FairThreads:
    """Sets the number of PyTorch's threads by the load of the machine.

    Does nothing if the user has set a number of threads, or how threads wait, in the environment.

    Args:
        log: called with a sentence at every change.
        interval: seconds between readings.
        read: returns a reading; replaced in tests.
    """

    def __init__(
        self, log: Callable[[str], None], interval: float = 1.0, read: Callable[[], Load | None] = read_load
    ) -> None:
        self._log, self._interval, self._read = log, interval, read
        fixed = any(name in os.environ for name in _FIXED_BY)
        self._last = None if fixed else read()
        self._threads = ThreadCount(torch.get_num_threads())

    def look(self) -> None:
        """Read the load, if the interval has passed, and set the number; call it in the thread that computes."""
        if self._last is None or self._threads.maximum == 1 or time.monotonic() - self._last.wall < self._interval:
            return
        now = self._read()
        if now is None:
            return
        old, new = self._threads.count, self._threads.update(self._last, now)
        self._last = now
        if new != old:
            torch.set_num_threads(new)
            why = "others use the processor" if new < old else "a core is free again"
            self._log(f"computing with {new} of {self._threads.maximum} threads from here on: {why}")
