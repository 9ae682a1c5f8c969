"""The report of compression steps: accuracy, size and measured latency of each, as a table, data and a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.logging import MMLogger

from efftasks.apis.compression_steps import Chain
from efftasks.bench.environment import describe_environment
from efftasks.bench.file_latency import runtimes_of, time_files
from efftasks.bench.processes import in_new_process
from efftasks.bench.rows import BenchmarkSettings
from efftasks.bench.run_report import RunReport, draw_curves, in_points, read_scalars, write_page
from efftasks.bench.steps_plot import draw_accuracy_against_latency
from efftasks.bench.table import write_report
from efftasks.runtime.backends.table import BACKENDS

__all__ = ["CompressionReport", "write_compression_report"]

STEM = "report"


class CompressionReport(NamedTuple):
    """Measured steps.

    Attributes:
        rows: a dict for each exported file, in order; the keys of ``columns``, ``path``, ``metrics`` (all, of model and
            file), ``metric on`` (runtime -> value) and ``latency`` (runtime -> statistics in ms, or why it has none).
        columns: of the table.
        environment: what it was measured on.
        page: the HTML report; ``report.json``, ``report.csv``, ``report.md`` and ``report.png`` are beside it.
    """

    rows: list[dict[str, Any]]
    columns: tuple[str, ...]
    environment: dict[str, str]
    page: Path


def write_compression_report(work_dir: Path, results: Sequence[dict[str, Any]], chain: Chain) -> CompressionReport:
    """Time all files in one new process, and write the report into the work dir.

    Args:
        work_dir: of the run.
        results: rows of :func:`efftasks.apis.compression_results.step_rows`, the dense model first.
        chain: the steps.
    """
    latencies = _latencies([row["path"] for row in results], chain.benchmark)
    name, factor = in_points(results[0]["metric"])
    rows = [_row(row, latency, results[0], latencies[0], name) for row, latency in zip(results, latencies)]
    runtimes = [backend for backend in BACKENDS if any(isinstance(row["latency"].get(backend), dict) for row in rows)]
    columns: tuple[str, ...] = ("step", "epochs", "file", "input", name, f"{name} in PyTorch", "change")
    columns += ("params M", "GFLOPs", "FLOPs saved", "file MB")
    for runtime in runtimes:
        columns += tuple(f"{runtime} {key}" for key in ("ms", "iqr ms", "speed-up"))
        same = all(row["metric on"].get(runtime) in (None, row["metrics"]["artifact"][row["metric"]]) for row in rows)
        columns += () if same else (f"{name} on {runtime}",)
    environment = describe_environment(chain.benchmark.threads)
    stem = work_dir / STEM
    write_report(stem, rows, columns, environment)
    draw_accuracy_against_latency(rows, runtimes, name, factor, stem.with_suffix(".png"))
    page = write_page(_page(work_dir, rows, columns, environment, chain), stem.with_suffix(".html"))
    return CompressionReport(rows, columns, environment, page)


def _latencies(paths: list[str], settings: BenchmarkSettings) -> list[dict[str, Any]]:
    """The times of files on each runtime, or the reason against them: the figures of trainings are not lost with it."""
    try:
        return in_new_process("latency of the steps", time_files, paths, settings)
    except Exception as error:  # also of a runtime, from the other process
        MMLogger.get_current_instance().warning(f"no file is timed: {error}")
        return [dict.fromkeys(runtimes_of(path, settings.backends), f"not timed: {error}") for path in paths]


def _row(
    row: dict[str, Any], latency: dict[str, Any], dense: dict[str, Any], dense_latency: dict[str, Any], name: str
) -> dict[str, Any]:
    """A row of the table: the figures of a file, in points and against those of the dense model."""
    factor = in_points(row["metric"])[1]
    value, before = row["metrics"]["artifact"][row["metric"]], dense["metrics"]["artifact"][row["metric"]]
    result = {
        **row,
        name: factor * value,
        f"{name} in PyTorch": factor * row["metric in PyTorch"],
        "change": factor * (value - before),
        "FLOPs saved": dense["GFLOPs"] / row["GFLOPs"],
        "latency": latency,
    }
    for runtime, stats in latency.items():
        if row["metric on"].get(runtime) is not None:
            result[f"{name} on {runtime}"] = factor * row["metric on"][runtime]
        if not isinstance(stats, dict):
            continue
        result[f"{runtime} ms"], result[f"{runtime} iqr ms"] = stats["p50"], stats["iqr"]
        if isinstance(dense_latency.get(runtime), dict):
            result[f"{runtime} speed-up"] = dense_latency[runtime]["p50"] / stats["p50"]
    return result


def _page(
    work_dir: Path, rows: list[dict[str, Any]], columns: Sequence[str], environment: dict[str, str], chain: Chain
) -> RunReport:
    dense, last = rows[0], rows[-1]
    name = columns[4]
    cards = {f"{name}, {row['step']}": f"{row[name]:.1f}" for row in (dense, last)}
    for column in columns:
        if column.endswith(" speed-up") and last.get(column):
            cards[f"{column}, {last['step']}"] = f"{last[column]:.2f} x"
    cards["file"] = f"{dense['file MB']:.2f} -> {last['file MB']:.2f} MB"
    curves = {}
    for step in chain.steps:
        scalars = read_scalars(work_dir / step.folder)
        if step.trains and scalars:
            draw_curves(scalars, work_dir / step.folder / "curves.svg")
            curves[f"Training of {step.name}"] = f"{step.folder}/curves.svg"
    faults = [
        (row["step"], row["file"], runtime, stats)
        for row in rows
        for runtime, stats in row["latency"].items()
        if not isinstance(stats, dict)
    ]
    tables: dict[str, Any] = {"Steps": (columns, [[row.get(column, "") for column in columns] for row in rows])}
    if faults:
        tables["Not timed"] = (("step", "file", "runtime", "why"), faults)
    files = [(row["step"], row["file"], os.path.relpath(row["path"], work_dir)) for row in rows]
    tables["Files"] = (("step", "file", "path"), files)
    settings = chain.benchmark
    lead = (
        f"Each step starts from the result of the last. {name} is that of the exported file, in points of 100. "
        f"Times are medians of {settings.runs} calls with a batch of one, all files in turn in one process; iqr is the "
        "distance of their quartiles."
    )
    figures = {f"{name} against measured latency": f"{STEM}.png"}
    return RunReport("Compression", lead, cards, tables, figures=figures, more_figures=curves, environment=environment)
