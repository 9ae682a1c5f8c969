"""Parameters, FLOPs and measured latency of models, side by side; exported files alone need no PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from efftasks.bench.environment import describe_environment
from efftasks.bench.gap import add_gaps
from efftasks.bench.latency import measure
from efftasks.bench.rows import COLUMNS, BenchmarkSettings, Row, artifact_rows
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["Benchmark", "benchmark"]

DEFAULTS = BenchmarkSettings()


class Benchmark(NamedTuple):
    """Measured models."""

    rows: list[dict[str, Any]]  # a model on a backend at a size; keys as in COLUMNS, those that were measured
    columns: tuple[str, ...]  # those that any row has
    environment: dict[str, Any]  # what it was measured on


def benchmark(models: Sequence[str], settings: BenchmarkSettings = DEFAULTS, baseline: str | None = None) -> Benchmark:
    """Measure models in turn, interleaved in this process, on one image, in float32.

    Args:
        models: artifacts, checkpoints of work dirs, configs, or backbones (``backbone:NAME[,argument=value...]``).
        settings: on what, and how often.
        baseline: one of the models; speed-up, saved FLOPs and the gap between them are against it.

    Raises:
        UserError: a model that cannot be measured so.
    """
    if baseline is not None and baseline not in models:
        raise UserError(f"--baseline: got {baseline!r}, expected one of the models: {', '.join(models)}")
    table: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], float]] = {}
    labels: dict[str, str] = {}  # of the first row of a model: it may have rows of several widths
    with tempfile.TemporaryDirectory(prefix="efftasks-benchmark-") as folder:
        # Silent where nobody watches.
        for model in tqdm(dict.fromkeys(models), desc="preparing", leave=False, disable=None):
            for row, call in _rows(model, settings, Path(folder)):
                calls[str(len(table))] = call
                table.append(row)
                labels.setdefault(model, str(row["model"]))
        for key, stats in measure(calls, settings.warmup, settings.runs).items():
            table[int(key)].update(
                {
                    "mean ms": stats.mean,
                    "p50 ms": stats.p50,
                    "p90 ms": stats.p90,
                    "p99 ms": stats.p99,
                    "iqr ms": stats.iqr,
                    "min ms": stats.minimum,
                    "runs": stats.runs,
                }
            )
    if baseline is not None:
        add_gaps(table, labels[baseline])
    columns = tuple(column for column in COLUMNS if any(row.get(column) is not None for row in table))
    return Benchmark(table, columns, describe_environment(settings.threads))


def _rows(model: str, settings: BenchmarkSettings, folder: Path) -> Iterator[Row]:
    for size in settings.sizes or (None,):
        if model.startswith("backbone:") or Path(model).suffix in ("", ".py") or is_checkpoint(model):
            from efftasks.apis.benchmark_models import model_rows

            yield from model_rows(model, size, settings, folder)
        else:
            yield from artifact_rows(model, size, settings)
