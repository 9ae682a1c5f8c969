"""Models by backends by precisions: what is verified, what is refused and why, and what each file costs."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

from tqdm import tqdm

# isort: split
import numpy as np
import torch

from efftasks.apis.benchmark_models import config_beside
from efftasks.apis.building import Model, build, load
from efftasks.apis.evaluating import test_images
from efftasks.apis.export_settings import ExportSettings
from efftasks.apis.exporting import export_model
from efftasks.bench.cold_start import cold_start
from efftasks.bench.engines import artifact_call
from efftasks.bench.environment import describe_environment
from efftasks.bench.latency import measure, timed
from efftasks.bench.table import Footnotes, to_markdown
from efftasks.config import class_metainfo, load_config
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.families import FAMILIES
from efftasks.export.verify_metrics import main_metrics
from efftasks.imaging.crops import TOP_DOWN
from efftasks.imaging.sources import find_images
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.predictor import Predictor
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["RuntimeTable", "RuntimeTableSettings", "runtime_table"]

COLUMNS = ("model", "backend", "precision", "result", "p50 ms", "p90 ms", "network ms", "MB", "peak RSS MB", "start ms")
Row = dict[str, Any]
_MADE = "made.json"  # in the folder of a file: what was made of what


@dataclass(frozen=True)
class RuntimeTableSettings:
    """Which files are written, how they are verified, and how often they are timed.

    Raises:
        UserError: an unknown backend, or a number out of its range.
    """

    backends: tuple[str, ...] = tuple(EXPORTERS)
    precisions: tuple[str, ...] = ()  # none: all of each backend
    size: tuple[int, int] | None = None  # (height, width) in pixels; None: that of each config
    images: str | Path | None = None  # a folder to verify and calibrate on; None: the data of each config
    num_images: int = 16  # to verify on
    evaluate: bool = False  # also the metric of each file on the test data of its config
    threads: int | None = None  # of the runtimes; None leaves them to it
    runs: int = 50
    warmup: int = 5
    keep: Path | None = None  # a folder for the files, of which a later run takes those of the same model and settings
    options: Mapping[str, Any] = field(default_factory=dict)  # overrides of the configs, keys with dots

    def __post_init__(self) -> None:
        for backend in self.backends:
            if backend not in EXPORTERS:
                raise UserError(f"--backend: got {backend!r}, expected one of {', '.join(EXPORTERS)}")
        for name, least in (("runs", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name}: got {value}, expected an integer from {least}")

    def precisions_of(self, exporter: Exporter) -> tuple[str, ...]:
        """Those of an exporter that are asked for."""
        return tuple(name for name in exporter.precisions if not self.precisions or name in self.precisions)


class RuntimeTable(NamedTuple):
    """A row for each model, backend and precision."""

    rows: list[Row]  # keys as in columns; ``reason`` of those that are not verified
    columns: tuple[str, ...]
    environment: dict[str, str]

    def to_markdown(self) -> str:
        """The table, with numbers at the results that have a reason, and the reasons below."""
        notes = Footnotes()
        rows = [{**row, "result": notes.mark(row["result"], row.get("reason"))} for row in self.rows]
        return f"{to_markdown(rows, self.columns)}\n\n{notes}".rstrip()


def runtime_table(models: Sequence[str], settings: RuntimeTableSettings) -> RuntimeTable:
    """Export every model with every backend in every precision, verify the files, and time those that pass.

    The files of one model are timed in turn, interleaved in this process; first prediction and peak memory are those of
    a process of its own.

    Args:
        models: names of families (their smallest config, with random weights), configs (the same), or checkpoints of
            work dirs.
        settings: on what, and how often.

    Raises:
        UserError: no such model, or no images.
    """
    _check(models, settings)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="efftasks-runtimes-") as folder:
        for i, name in enumerate(tqdm(models, desc="models", leave=False, disable=None)):
            rows.extend(_rows(name, settings.keep or Path(folder, str(i)), settings))
    metrics = {key: None for row in rows for key in row if key not in (*COLUMNS, "reason")}
    return RuntimeTable(rows, (*COLUMNS[:4], *metrics, *COLUMNS[4:]), describe_environment(settings.threads))


def _check(models: Sequence[str], settings: RuntimeTableSettings) -> None:
    """What would otherwise look like a refusal of every backend."""
    if settings.images is not None:
        find_images(settings.images)
    for name in models:
        cfg = _config(name, settings)
        if settings.images is None and is_checkpoint(name):
            test_images(cfg)
        elif settings.images is None:
            raise UserError(f"--images: missing, {name} has random weights and no data to verify and calibrate on")


def _rows(name: str, folder: Path, settings: RuntimeTableSettings) -> list[Row]:
    """The rows of one model."""
    has_weights = is_checkpoint(name)
    label = config_beside(Path(name)).stem if has_weights else name
    source = {"model": ArtifactFile.of(name).sha256 if has_weights else name, "options": repr(settings.options)}
    rows: list[Row] = []
    files: dict[int, Path] = {}
    for exporter, precision in _combinations(settings):
        wishes = _export_settings(exporter, precision, settings, has_weights)
        out = folder / label / f"{exporter.name}-{precision}"
        source["settings"] = repr(wishes)
        made = _earlier(out, source)
        if made is None:
            made = _export(name, exporter, out, wishes, settings)
            (out / _MADE).write_text(json.dumps({"source": source, **made}), encoding="utf-8")
        if made["file"] is not None:
            files[len(rows)] = out / made["file"]
        rows.append({"model": label, "backend": exporter.name, "precision": precision, **made["row"]})
    for i, costs in _costs(files, settings):
        rows[i].update(costs)
    return rows


def _earlier(out: Path, source: dict[str, str]) -> dict[str, Any] | None:
    """What an earlier run made of the same model in the same way; None where there was none."""
    try:
        made: dict[str, Any] = json.loads((out / _MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return made if made.pop("source") == source else None


def _export(
    name: str, exporter: Exporter, out: Path, wishes: ExportSettings, settings: RuntimeTableSettings
) -> dict[str, Any]:
    """Export one file: the ``row`` of the table, without what it costs, and the name of the ``file`` or None."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        # Built anew for each: an export sets the size in the model's config.
        exported = export_model(_model(name, settings), out, wishes)
    except UserError as error:
        return {"row": {"result": "refused", "reason": str(error)}, "file": None}
    except WorkError as error:  # without the folder the same reason is the same text
        return {"row": {"result": "failed", "reason": str(error).replace(f"{out}/", "")}, "file": None}
    place = exporter.backend if exported.page_report is None else "a browser"
    row = {"result": f"verified in {place}", **main_metrics(exported.metrics.get("artifact", {}))}
    return {"row": row, "file": exported.path.name}


def _combinations(settings: RuntimeTableSettings) -> Iterator[tuple[Exporter, str]]:
    for name in settings.backends:
        for precision in settings.precisions_of(EXPORTERS[name]):
            yield EXPORTERS[name], precision


def _export_settings(
    exporter: Exporter, precision: str, settings: RuntimeTableSettings, has_weights: bool
) -> ExportSettings:
    return ExportSettings(
        backend=exporter.name,
        precision=precision,
        size=settings.size,
        images=settings.images,
        num_images=settings.num_images,
        evaluate=settings.evaluate and has_weights,
        calib_images=settings.images if precision == "int8" else None,
    )


def _model(name: str, settings: RuntimeTableSettings) -> Model:
    cfg = _config(name, settings)
    if is_checkpoint(name):
        return load(cfg, name)
    torch.manual_seed(0)
    model = build(cfg)
    model.cfg, model.dataset_meta = cfg, class_metainfo(cfg)
    return model.eval()


def _config(name: str, settings: RuntimeTableSettings) -> LinkedConfig:
    options = dict(settings.options)
    if name in FAMILIES:
        return load_config(FAMILIES[name].config, {**FAMILIES[name].without_data, **options})
    return load_config(config_beside(Path(name)) if is_checkpoint(name) else name, options)


def _costs(files: dict[int, Path], settings: RuntimeTableSettings) -> Iterator[tuple[int, Row]]:
    """What each file takes: time, memory, room on the disk."""
    calls: dict[str, Callable[[], float]] = {}
    costs: dict[int, Row] = {}
    for i, path in files.items():
        spec = ArtifactSpec.load(path.with_suffix(".json"))
        exporter = EXPORTERS[spec.backend]
        costs[i] = {"MB": sum(file.bytes for file in spec.files) / 1e6}
        if exporter.page is not None:  # what its file takes outside of a browser says nothing
            costs[i]["network ms"] = spec.verify.get("browser", {}).get("milliseconds")
            continue
        artifact = Artifact(path, exporter.backend, settings.threads)
        calls[f"{i} network"] = artifact_call(artifact, (spec.input.height, spec.input.width))
        if spec.task == TOP_DOWN:  # a prediction is of as many crops as there are boxes
            continue
        first = cold_start(str(path), exporter.backend, settings.threads)
        costs[i].update({"peak RSS MB": first.peak_rss_mb, "start ms": first.milliseconds})
        predictor = Predictor(artifact)
        image = np.random.default_rng(0).integers(0, 256, (*predictor.size, 3), dtype=np.uint8)
        calls[f"{i} prediction"] = timed(functools.partial(predictor, image))
    stats = measure(calls, settings.warmup, settings.runs)
    for i, cost in costs.items():
        if f"{i} network" in stats:
            cost["network ms"] = stats[f"{i} network"].p50
        if f"{i} prediction" in stats:
            cost.update({"p50 ms": stats[f"{i} prediction"].p50, "p90 ms": stats[f"{i} prediction"].p90})
        yield i, cost
