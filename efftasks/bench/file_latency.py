"""Latency of exported files on all runtimes that read them, interleaved in one process. Needs no PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from efftasks.bench.engines import artifact_call
from efftasks.bench.latency import measure
from efftasks.bench.rows import BenchmarkSettings
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError

__all__ = ["runtimes_of", "time_files"]


def runtimes_of(path: str | Path, chosen: Sequence[str] = ()) -> list[str]:
    """The installed runtimes that read a file.

    Args:
        path: the file; only its suffix is looked at.
        chosen: names; if there are any, only these count.
    """
    suffix = Path(path).suffix.lower()
    return [
        name
        for name, backend in BACKENDS.items()
        if suffix in backend.reads
        and (not chosen or name in chosen)
        and importlib.util.find_spec(backend.module) is not None
    ]


def time_files(paths: Sequence[str], settings: BenchmarkSettings) -> list[dict[str, Any]]:
    """Time the network of every file on every runtime that reads it, see :func:`efftasks.bench.latency.measure`.

    Args:
        paths: exported files.
        settings: ``backends``, ``threads``, ``runs`` and ``warmup``.

    Returns:
        A dict of each file: runtime -> the fields of :class:`~efftasks.bench.latency.LatencyStats`, or the message of
        the runtime that cannot run it.
    """
    calls: dict[str, Callable[[], float]] = {}
    results: list[dict[str, Any]] = [{} for _ in paths]
    places: dict[str, tuple[int, str]] = {}
    for i, path in enumerate(paths):
        for runtime in runtimes_of(path, settings.backends):
            try:
                artifact = Artifact(path, runtime, settings.threads)
                spec = artifact.spec.input
                call = artifact_call(artifact, (spec.height, spec.width))
                call()
            except (UserError, RuntimeError) as error:
                results[i][runtime] = str(error)
                continue
            key = f"{i} {runtime}"
            calls[key], places[key] = call, (i, runtime)
    stats: Mapping[str, Any] = measure(calls, settings.warmup, settings.runs)
    for key, (i, runtime) in places.items():
        results[i][runtime] = asdict(stats[key])
    return results
