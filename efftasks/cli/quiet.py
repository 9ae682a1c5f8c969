"""What a command leaves out of the terminal: what libraries say and its user can do nothing about.

Each line is left out by its own words, so that whatever is new still shows. The log file of a work dir has them all,
and ``--debug`` shows them.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["quiet"]

# Whole lines that libraries print.
_PRINTED = re.compile(r"Could not import OneDL\b.*")
# How mmengine's records begin on the terminal; the level may be coloured.
_RECORD = r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - \S*(?:INFO|WARNING)\S* - "
_LOGGED = re.compile(
    _RECORD
    + "(?:"
    + "|".join(
        (
            r"\s*-{20,}\s*System environment:",  # the file has it
            r"Config:\n",  # the file has it, and so has the work dir
            r"Hooks will be executed in the following order:",
            r"Distributed training is not used, all SyncBatchNorm",
            r"Exp name: ",
            r"paramwise_options -- ",  # a line for each parameter
            r'"FileClient" will be deprecated',
            r'"HardDiskBackend" is the alias of "LocalBackend"',
            r"The prefix is not set in metric class SemanticIoU",
        )
    )
    + ")"
)
# Category and beginning of the message of warnings.
_WARNED: tuple[tuple[type[Warning], str], ...] = (
    (UserWarning, r"For binary segmentation, we suggest using"),
    (DeprecationWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
)


class _Screen:
    """A text stream that leaves out the records above; ``print`` and logging handlers write each record at once.

    Args:
        stream: where everything else goes; it also has what is not said here, such as ``flush`` and ``isatty``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ends_a_dropped_line = False

    def write(self, text: str) -> int:
        """Write, or leave out; ``print`` writes the end of a line by itself."""
        ends, self._ends_a_dropped_line = self._ends_a_dropped_line and text == "\n", False
        if ends:
            return len(text)
        if _LOGGED.match(text) or _PRINTED.fullmatch(text.rstrip("\n")):
            self._ends_a_dropped_line = not text.endswith("\n")
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Leave out such lines in the block; loggers and worker processes that begin in it do so as well.

    Args:
        active: false leaves out nothing.
    """
    if not active:
        yield
        return
    screen: Any = _Screen(sys.stdout)
    with warnings.catch_warnings(), contextlib.redirect_stdout(screen):
        for category, message in _WARNED:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
