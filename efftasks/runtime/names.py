"""Names of files in tables and messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["short_names"]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Path -> the shortest end of it with which no two of them are called the same."""
    parts = {path: Path(path).parts for path in paths}
    names: dict[str, str] = {}
    for count in range(1, 1 + max(map(len, parts.values()), default=0)):
        names = {path: "/".join(part[-count:]) for path, part in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names
