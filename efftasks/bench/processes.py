"""Work in a new process, which nothing has changed before."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from efftasks.structures.errors import WorkError

__all__ = ["in_new_process"]

Result = TypeVar("Result")
LINES = 4  # of stderr in messages
# What the new process runs. The output of the work is kept apart, also that of libraries that write to the descriptors.
_PROGRAM = """
import os, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
answer = os.fdopen(os.dup(1), "wb")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
try:
    work, arguments = pickle.load(sys.stdin.buffer)
    result = True, work(*arguments)
except Exception as error:
    result = False, error
pickle.dump(result, answer)
"""


def in_new_process(what: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of some work that a new process does; what it prints is dropped.

    The process does not import the program that calls this, as those of ``multiprocessing`` do: a script that trains
    without ``if __name__ == "__main__"`` would train again there.

    Args:
        what: the work in words, for the message.
        work: a function of a module.
        arguments: its arguments.

    Raises:
        WorkError: the process ended before it was done, mostly for want of memory; with the last that it wrote to
            stderr.
    """
    given = pickle.dumps(sys.path) + pickle.dumps((work, arguments))
    done = subprocess.run([sys.executable, "-c", _PROGRAM], input=given, capture_output=True)
    try:
        succeeded, result = pickle.loads(done.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        lines = done.stderr.decode(errors="replace").split("\n")
        tail = "".join(f"; {line.strip()}" for line in lines[-LINES:] if line.strip())
        raise WorkError(
            f"{what}: the process that measures it ended early (exit code {done.returncode}){tail}"
        ) from error
    if not succeeded:
        raise result
    value: Result = result
    return value
