"""How many threads PyTorch computes with, beside whatever else runs on the machine.

The threads of a parallel loop wait for the last of them. When another program takes the core of one, all others wait
for it, and spin: one busy browser made a training step on two cores four to ten times slower, where one thread alone
loses nothing. Threads that sleep while they wait (``OMP_WAIT_POLICY=passive``) are no cure: on the quiet machine of the
benchmarks they made the same step 1.9 times slower, since waking one costs as much as a small operator.
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

_MOST_WORKERS = 4


class Load(NamedTuple):
    """Seconds since the start of the process or of the machine; differences of two are what counts."""

    wall: float
    waiting: float  # that threads of this process were ready to run and had no core, summed over threads
    idle: float  # that cores open to this process had nothing to do, summed over cores


class ThreadCount:
    """The number of threads by what a machine has left: a thread less for each that waits for a core.

    A thread comes back where a core idles. Where it is in the way again at once, it stays away twice as long as before.

    Args:
        most: threads on a quiet machine.
    """

    WAITING, IDLE = 0.3, 0.7  # of a core
    FIRST_BREAK, LONGEST_BREAK = 5.0, 300.0  # seconds

    def __init__(self, most: int) -> None:
        self.most = self.count = most
        self._break = self.FIRST_BREAK
        self._changed = float("-inf")

    def update(self, before: Load, now: Load) -> int:
        """The number from now on, by what happened between two readings."""
        seconds = now.wall - before.wall
        waiting, idle = (now.waiting - before.waiting) / seconds, (now.idle - before.idle) / seconds
        if waiting > self.WAITING and self.count > 1:
            came_back = now.wall - self._changed < self.FIRST_BREAK
            self._break = min(2 * self._break, self.LONGEST_BREAK) if came_back else self.FIRST_BREAK
            self.count = max(1, self.count - max(1, round(waiting)))
            self._changed = now.wall
        elif idle > self.IDLE and self.count < self.most and now.wall - self._changed >= self._break:
            self.count += 1
            self._changed = now.wall
        return self.count


def free_workers(processes: int = 1) -> int:
    """How many worker processes may load data beside one of so many training processes.

    On a CPU they get the cores that PyTorch's threads leave. Where there is none, the training process loads its data
    itself: a worker would take a core from threads that wait for one another, which on two cores cost more than the
    loading (a step at 128 px: 0.23 s with a worker, 0.18 s without).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return min(_MOST_WORKERS, max(1, cores // processes))
    return min(_MOST_WORKERS, max(0, cores // processes - torch.get_num_threads()))


def read_load() -> Load | None:
    """A reading of Linux's scheduler; None where there is none to read."""
    try:
        waiting = sum(_waited(task) for task in Path("/proc/self/task").iterdir())
        cores = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        ticks = sum(int(line[4]) for line in lines if line[0] in cores)
        return Load(time.monotonic(), waiting / 1e9, ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):  # another system, or a container that hides it
        return None


def _waited(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[1])
    except FileNotFoundError:
        if task.is_dir():
            raise
        return 0  # the thread has just ended


class FairThreads:
    """Watches the load of the machine and sets the number of PyTorch's threads by it.

    What the user has fixed stays: a number of threads, or a way to wait, in the environment.

    Args:
        log: told of every change, in a sentence.
        interval: seconds between looks.
        read: the reading; another one for tests.
    """

    def __init__(
        self, log: Callable[[str], None], interval: float = 1.0, read: Callable[[], Load | None] = read_load
    ) -> None:
        self._log, self._interval, self._read = log, interval, read
        fixed = any(name in os.environ for name in _FIXED_BY)
        self._last = None if fixed else read()
        self._threads = ThreadCount(torch.get_num_threads())

    def look(self) -> None:
        """Look at the machine, if it is time, and set the number; from the thread that computes."""
        if self._last is None or self._threads.most == 1 or time.monotonic() - self._last.wall < self._interval:
            return
        now = self._read()
        if now is None:
            return
        old, new = self._threads.count, self._threads.update(self._last, now)
        self._last = now
        if new != old:
            torch.set_num_threads(new)
            why = "others use the processor" if new < old else "a core is free again"
            self._log(f"computing with {new} of {self._threads.most} threads from here on: {why}")
