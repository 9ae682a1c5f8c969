"""A progress bar for long loops on a terminal."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress"]

T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str, least: int = 50) -> Iterator[T]:
    """Yield the items, with a bar on stderr if that is a terminal, tqdm is installed and ``total`` >= ``least``."""
    if total < least:
        yield from items
        return
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        yield from items
        return
    yield from tqdm(items, total=total, desc=what, unit="image", disable=None, leave=False)
