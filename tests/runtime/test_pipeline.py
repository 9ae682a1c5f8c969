"""Threads around a session: order, bounds, errors at their turn, and an end without threads left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from efftasks.runtime.pipeline import run_ahead


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("efftasks")]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert own_threads() == []


@pytest.mark.parametrize("readers", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_results_are_in_order(readers, ahead):
    results = run_ahead(iter(range(40)), lambda x: x * 10, lambda x: x + 1, readers, ahead)
    assert list(results) == [10 * x + 1 for x in range(40)]
    assert list(run_ahead(iter(()), str, str, readers, ahead)) == []


def test_a_slow_part_does_not_lose_its_place():
    """The second part is ready before the first: the first waits until the second has been read."""
    second = threading.Event()

    def read(x: int) -> int:
        if x == 0:
            assert second.wait(10)
        if x == 1:
            second.set()
        return x

    assert list(run_ahead(iter(range(5)), read, lambda x: x, readers=2, ahead=3)) == list(range(5))


def test_the_session_runs_while_the_caller_works():
    started = [threading.Event() for _ in range(3)]

    def run(x: int) -> int:
        started[x].set()
        return x

    results = run_ahead(iter(range(3)), lambda x: x, run, readers=1, ahead=3)
    assert next(results) == 0
    assert next(results) == 1
    assert started[2].wait(10)  # nobody has asked for it yet
    results.close()


def test_no_more_is_taken_than_what_is_held():
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = run_ahead(parts(), lambda x: x, lambda x: x, readers=2, ahead=4)
    for i in range(20):
        assert next(results) == i
        assert len(taken) <= i + 4
    results.close()


@pytest.mark.parametrize("place", ["parts", "read", "run"])
@pytest.mark.parametrize("readers", [1, 2])
def test_an_error_comes_at_its_turn(place, readers):
    def failing(x: int) -> int:
        if x == 3:
            raise ValueError(f"{place} of {x}")
        return x

    def parts() -> Iterator[int]:
        for i in range(10):
            yield failing(i) if place == "parts" else i

    steps = [failing if place == name else (lambda x: x) for name in ("read", "run")]
    results = run_ahead(parts(), steps[0], steps[1], readers, 4)
    got = []
    with pytest.raises(ValueError, match=f"{place} of 3"):
        for result in results:
            got.append(result)
    assert got == [0, 1, 2]
    assert own_threads() == []


def test_an_early_end_stops_the_threads():
    results = run_ahead(iter(range(1000)), lambda x: x, lambda x: x, 2, 8)
    for result in results:
        if result == 2:
            break
    assert own_threads()
    results.close()
    assert own_threads() == []


def test_nothing_begins_before_it_is_asked_for():
    def parts() -> Iterator[int]:
        raise AssertionError("asked for a part")
        yield 0

    results = run_ahead(parts(), lambda x: x, lambda x: x, 1, 1)
    assert own_threads() == []
    results.close()
