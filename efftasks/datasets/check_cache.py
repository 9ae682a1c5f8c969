"""Results of checks in the user's cache folder: a file that has not changed is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import efftasks

__all__ = ["digest", "file_stamp", "load_json", "recall", "remember", "save_json"]

_FORMAT = 1  # version of the entries


def recall(files: Sequence[str | Path], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The value that :func:`remember` stored; None if there is none, or one of the files has changed since.

    Args:
        files: files and folders that the value depends on, compared by their times and sizes.
        options: everything else that it depends on.
    """
    entry = load_json(_entry_name(files, options))
    try:
        return entry["value"] if entry["stamp"] == _stamp(files) else None
    except (OSError, KeyError, TypeError):
        return None


def remember(files: Sequence[str | Path], options: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Store plain data for :func:`recall`; without a usable cache folder nothing is stored, and nothing is raised."""
    try:
        stamp = _stamp(files)
    except OSError:
        return
    save_json(_entry_name(files, options), dict(stamp=stamp, value=value))


def load_json(name: str) -> Any:
    """Read a file of the cache folder; None if it is missing or broken."""
    try:
        return json.loads(_path(name).read_bytes())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: the home folder is unknown
        return None


def save_json(name: str, data: Any) -> None:
    """Write a file of the cache folder atomically; nothing is raised if that is not possible."""
    try:
        path = _path(name)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(data))
        os.replace(draft, path)
    except (OSError, RuntimeError):  # checks are only slower without it
        return


def file_stamp(path: str | Path) -> list[int]:
    """Time and size of a file or folder, which change when it does; raises OSError if it is missing."""
    state = os.stat(path)
    return [state.st_mtime_ns, state.st_size]


def digest(text: str, length: int) -> str:
    """The first hexadecimal digits of a hash, for file names."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _path(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "efftasks", name)


def _entry_name(files: Sequence[str | Path], options: Mapping[str, Any]) -> str:
    """One entry for the same files and options, so that an outdated one is overwritten."""
    key = json.dumps([[os.path.abspath(file) for file in files], options], sort_keys=True, default=str)
    return f"checks/{digest(key, 32)}.json"


def _stamp(files: Sequence[str | Path]) -> list[Any]:
    return [efftasks.__version__, _FORMAT, *(file_stamp(file) for file in files)]
