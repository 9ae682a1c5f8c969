"""A thread that does the calls of an experiment tracker, so that training does not wait for a network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["Worker"]

PENDING = 256  # calls that may wait; training makes one every 20 steps


class Worker:
    """Does tasks in their order in a thread, until the first that fails.

    Args:
        name: of the thread.
        on_failure: is called once, with the reason, by the thread or by the caller of :meth:`submit`. Later tasks are
            dropped.
    """

    def __init__(self, name: str, on_failure: Callable[[str | BaseException], None]) -> None:
        self._tasks: queue.Queue[tuple[Callable[[], None], threading.Event]] = queue.Queue(PENDING)
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._has_failed = False
        # A daemon: a call that never returns must not keep the process alive.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, task: Callable[[], None], seconds: float | None = None) -> None:
        """Queue a task.

        Args:
            task: is called in the thread.
            seconds: wait until it is done, at most so long; None does not wait.
        """
        if self._has_failed:
            return
        done = threading.Event()
        try:
            self._tasks.put_nowait((task, done))
        except queue.Full:
            self._fail(f"{PENDING} calls wait for an answer")
            return
        if seconds is not None and not done.wait(seconds):
            self._fail(f"no answer within {seconds:g} s")

    def _run(self) -> None:
        while True:
            task, done = self._tasks.get()
            try:
                if not self._has_failed:
                    task()
            except BaseException as error:  # a thread; libraries also raise SystemExit
                self._fail(error)
            finally:
                done.set()

    def _fail(self, reason: str | BaseException) -> None:
        with self._lock:
            is_first, self._has_failed = not self._has_failed, True
        if is_first:
            self._on_failure(reason)
