"""The number of threads beside other programs, on a machine whose load is made up, and on this one."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from efftasks.engine.cpu import keep_freed_memory
from efftasks.engine.threads import FairThreads, Load, ThreadCount, free_workers, read_load


class Machine:
    """A machine of so many cores on which another program keeps some busy."""

    def __init__(self, cores: int, others: int = 0) -> None:
        self.cores, self.others = cores, others
        self.load = Load(100.0, 0.0, 0.0)

    def run(self, threads: int, seconds: float = 1.0) -> tuple[Load, Load]:
        """Whoever is ready beyond the cores waits, and all wait alike."""
        before, ready = self.load, threads + self.others
        waiting = max(0, ready - self.cores) * threads / ready
        idle = max(0, self.cores - ready)
        self.load = Load(before.wall + seconds, before.waiting + waiting * seconds, before.idle + idle * seconds)
        return before, self.load


def counts(machine: Machine, threads: ThreadCount, seconds: int) -> list[int]:
    return [threads.update(*machine.run(threads.count)) for _ in range(seconds)]


def test_a_quiet_machine_is_used_as_a_whole():
    assert counts(Machine(4), ThreadCount(4), 20) == [4] * 20


@pytest.mark.parametrize(("cores", "others", "left"), [(2, 1, 1), (4, 1, 3), (4, 3, 1), (2, 5, 1), (8, 2, 6)])
def test_cores_that_others_use_are_left_to_them(cores, others, left):
    threads = ThreadCount(cores)
    assert counts(Machine(cores, others), threads, 10)[-1] == left


def test_a_core_that_is_free_again_is_taken():
    machine, threads = Machine(2, 1), ThreadCount(2)
    assert counts(machine, threads, 3) == [1, 1, 1]
    machine.others = 0
    assert counts(machine, threads, 10)[-1] == 2


def test_a_program_that_comes_and_goes_is_in_the_way_ever_more_seldom():
    threads, machine, drops = ThreadCount(2), Machine(2), []
    for second in range(400):
        machine.others = int(threads.count == 2)  # it works whenever there is nothing left for it
        before = threads.count
        threads.update(*machine.run(threads.count))
        if threads.count < before:
            drops.append(second)
    breaks = [b - a for a, b in pairwise(drops)]
    assert len(drops) < 12 and breaks == sorted(breaks) and breaks[-1] >= 2 * breaks[1]


def test_the_reading_of_this_machine_moves_on():
    first = read_load()
    if first is None:
        pytest.skip("no Linux scheduler to read")
    sum(range(10**6))
    second = read_load()
    assert second is not None and second.wall > first.wall
    assert second.waiting >= first.waiting and second.idle >= first.idle


FREE = "import torch; torch.set_num_threads(2)"
PROGRAM = f"""
{FREE}
from efftasks.engine.threads import FairThreads, Load
readings = iter([Load(0, 0, 0), Load(1, 0.7, 0)])
lines = []
threads = FairThreads(lines.append, read=lambda: next(readings))
threads.look()
print(torch.get_num_threads(), lines)
"""


@pytest.mark.parametrize(
    ("fixed", "threads"), [({}, 1), ({"OMP_NUM_THREADS": "2"}, 2), ({"OMP_WAIT_POLICY": "passive"}, 2)]
)
def test_what_the_user_has_fixed_stays(fixed, threads):
    names = ("OMP_", "MKL_", "GOMP_", "KMP_", "OPENBLAS_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(names)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    call = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, **fixed}, capture_output=True, text=True, check=True
    )
    assert call.stdout.split()[0] == str(threads), call.stdout
    assert ("computing with 1 of 2 threads" in call.stdout) == (threads == 1)


def test_one_thread_is_never_taken_away(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    readings = iter([Load(0, 0, 0), Load(1, 5, 0)])
    FairThreads(lambda line: pytest.fail(line), read=lambda: next(readings)).look()
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a CPU")
@pytest.mark.parametrize(("cores", "processes", "workers"), [(1, 1, 0), (2, 1, 1), (3, 1, 2), (16, 1, 4), (8, 4, 1)])
def test_workers_get_the_cores_that_threads_leave(cores, processes, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert torch.get_num_threads() == 1 and free_workers(processes) == workers


def test_freed_memory_is_kept_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_freed_memory()


FAULTS = """
import resource, sys, torch
if sys.argv[1] == "kept":
    from efftasks.engine.cpu import keep_freed_memory
    assert keep_freed_memory()
torch.set_num_threads(1)
for i in range(60):
    if i == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(8 << 20)  # 32 MB
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_pages_are_not_cleared_again():
    def faults(how: str) -> int:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        words = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)

    if faults("default") < 40:
        pytest.skip("another C library, whose allocator keeps freed memory")
    assert faults("kept") < 40
