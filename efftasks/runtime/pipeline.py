"""Work in threads around a session: what it reads is made ready ahead of it, in the order of the input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["run_ahead"]

Part = TypeVar("Part")
Ready = TypeVar("Ready")
Done = TypeVar("Done")


def run_ahead(
    parts: Iterator[Part], read: Callable[[Part], Ready], run: Callable[[Ready], Done], readers: int, ahead: int
) -> Generator[Done, None, None]:
    """``run(read(part))`` of each part, in order, ahead of the caller.

    ``read`` is called in ``readers`` threads, ``run`` in a single other one, and ``parts`` is advanced in the thread of
    the caller. While the caller works on a result, the session and the readers go on. The threads have ended when the
    iterator is exhausted, closed or has raised.

    Args:
        parts: what is to be done; at most ``ahead`` of it is held at a time.
        read: makes a part ready; with one reader it is called in order.
        run: works on what is ready, in order.
        readers: number of threads that read.
        ahead: number of parts whose results the caller has not taken yet.

    Raises:
        Exception: what ``parts``, ``read`` or ``run`` raise, after all results before it.
    """
    pending: deque[Future[Done]] = deque()
    reading = ThreadPoolExecutor(readers, thread_name_prefix="efftasks-read")
    running = ThreadPoolExecutor(1, thread_name_prefix="efftasks-run")

    def submit() -> bool:
        """Begin the next part; False where there is none."""
        try:
            part = next(parts)
        except StopIteration:
            return False
        except Exception as error:  # its turn comes after the results of all parts before
            failed: Future[Done] = Future()
            failed.set_exception(error)
            pending.append(failed)
            return False
        ready = reading.submit(read, part)
        pending.append(running.submit(lambda: run(ready.result())))
        return True

    try:
        more = submit()
        while pending:
            # Beyond one for each that is taken only while there is none to take: the source may be slow.
            while more and len(pending) < ahead and not pending[0].done():
                more = submit()
            yield pending.popleft().result()
            more = more and submit()
    finally:
        running.shutdown(wait=False, cancel_futures=True)
        reading.shutdown(cancel_futures=True)
        running.shutdown()
