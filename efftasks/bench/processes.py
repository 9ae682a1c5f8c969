"""Work in a new process, which nothing has changed before."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from efftasks.structures.errors import WorkError

__all__ = ["in_new_process"]

Result = TypeVar("Result")


def in_new_process(what: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of some work that a new process does; what it prints is dropped.

    Args:
        what: the work in words, for the message.
        work: a function of a module.
        arguments: its arguments.

    Raises:
        WorkError: the process ended before it was done, mostly for want of memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _silence) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise WorkError(f"{what}: the process that measures it ended early ({error})") from error


def _silence() -> None:
    """Drop what this process prints: before the work is unpickled, since importing it prints already."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (for as long as it lives)
