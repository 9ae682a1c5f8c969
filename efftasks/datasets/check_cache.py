"""What was looked at once, in the user's cache folder: a file that has not changed is not looked at again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import efftasks

__all__ = ["recall", "remember"]

_FORM = 1  # of what is kept


def recall(files: Sequence[str | Path], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was kept of files; None where one of them has changed since, or nothing is known.

    Args:
        files: files and folders that it depends on, by their time and size.
        options: whatever else it depends on.
    """
    try:
        kept = json.loads(_place(files, options).read_bytes())
        return kept["value"] if kept["stamp"] == _stamp(files) else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # RuntimeError: nobody knows the home folder
        return None


def remember(files: Sequence[str | Path], options: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Keep plain data for :func:`recall`; in silence nothing is kept where that is not possible."""
    try:
        place = _place(files, options)
        draft = place.with_name(f"{place.name}.{os.getpid()}")
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(dict(stamp=_stamp(files), value=value)))
        os.replace(draft, place)
    except (OSError, RuntimeError):
        return


def _place(files: Sequence[str | Path], options: Mapping[str, Any]) -> Path:
    """Of the same files and options there is one entry: what is no longer true is overwritten."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    names = [os.path.abspath(file) for file in files]
    text = json.dumps([names, options], sort_keys=True, default=str)
    return root / "efftasks" / "checks" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _stamp(files: Sequence[str | Path]) -> list[Any]:
    states = [os.stat(file) for file in files]
    return [efftasks.__version__, _FORM, *([state.st_mtime_ns, state.st_size] for state in states)]
