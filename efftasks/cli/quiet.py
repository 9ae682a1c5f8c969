"""Output of libraries that commands do not show in the terminal, since users can do nothing about it.

Each line is matched by its text, so that new ones are shown. The log file of a work dir has all of them, and
``--debug`` shows them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["quiet"]

# Lines that libraries print.
_PRINTED = re.compile(r"Could not import OneDL\b.*")
# How mmengine's records begin on the terminal; the level may be colored.
_RECORD = r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - \S*(?:INFO|WARNING)\S* - "
_LOGGED = re.compile(
    _RECORD
    + "(?:"
    + "|".join(
        (
            r"\s*-{20,}\s*System environment:",  # in the log file
            r"Config:\n",  # in the log file and the work dir
            r"Hooks will be executed in the following order:",
            r"Distributed training is not used, all SyncBatchNorm",
            r"Exp name: ",
            r"paramwise_options -- ",  # one line per parameter
            r'"FileClient" will be deprecated',
            r'"HardDiskBackend" is the alias of "LocalBackend"',
            r"The prefix is not set in metric class SemanticIoU",
        )
    )
    + ")"
)
# Categories of warnings, and how their messages begin.
_WARNED: tuple[tuple[type[Warning], str], ...] = (
    (UserWarning, r"For binary segmentation, we suggest using"),
    (DeprecationWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
)
# Loggers of imports that warn of kernels for GPUs and of PyTorch's own deprecations. transformers imports torchao where
# both are installed.
_LOGGERS = ("torchao", "torch.utils._pytree")
# OpenCV logs several lines for each image that it cannot decode. It reads its level when it is imported.
_OPENCV_LEVEL = "OPENCV_LOG_LEVEL"


class _Screen:
    """A text stream without the records above. It relies on ``print`` and logging writing each record at once.

    Args:
        stream: for everything else; it also provides the other methods, such as ``flush`` and ``isatty``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._after_dropped_line = False

    def write(self, text: str) -> int:
        """Write a record unless it is one of those above; ``print`` writes line ends separately."""
        is_line_end, self._after_dropped_line = self._after_dropped_line and text == "\n", False
        if is_line_end:
            return len(text)
        if _LOGGED.match(text) or _PRINTED.fullmatch(text.rstrip("\n")):
            self._after_dropped_line = not text.endswith("\n")
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Do not show such lines while the block runs, also from loggers and workers that are created in it.

    Args:
        active: false shows everything.
    """
    if not active:
        yield
        return
    os.environ.setdefault(_OPENCV_LEVEL, "OFF")
    screen: Any = _Screen(sys.stdout)
    with warnings.catch_warnings(), contextlib.redirect_stdout(screen):
        for category, message in _WARNED:
            warnings.filterwarnings("ignore", message=message, category=category)
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
