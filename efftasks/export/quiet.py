"""Silence for libraries that print, warn and log of their own internals. Standard library only."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No prints, warnings and logs up to warnings; nor what parts in C++ write to the descriptor of errors."""
    level = logging.root.manager.disable
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        logging.disable(logging.WARNING)
        with (
            open(os.devnull, "w") as nothing,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(level)
