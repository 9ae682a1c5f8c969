"""What a compression step leaves: its checkpoint, verified files, and a row of figures for each file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.logging import MMLogger

from efftasks.apis.building import fuse, load
from efftasks.apis.compression_state import measuring_digest
from efftasks.apis.compression_steps import CompressionStep
from efftasks.apis.entry_predictors import artifact_predictor
from efftasks.apis.evaluating import evaluate
from efftasks.apis.export_settings import ExportSettings
from efftasks.apis.exporting import Exported, export
from efftasks.apis.training import build_runner
from efftasks.bench.complexity import Complexity, count_complexity
from efftasks.bench.file_latency import runtimes_of
from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.files import dataset_meta_of, read_checkpoint
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.compression.plan import KEY as PLAN_KEY
from efftasks.config import class_metainfo
from efftasks.engine.wrapped import bare_model
from efftasks.export.exporters.table import EXPORTERS
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.comparison import Tolerance
from efftasks.structures.errors import UserError, WorkError

__all__ = ["Row", "step_rows", "trained_result", "transform_only"]

_EXPORTS = "exports"  # the folder of a step's files
_ROWS = "rows.json"
_MODEL = "model.pth"  # what a step without training leaves
_NO_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")  # of mmengine

Row = dict[str, Any]


def trained_result(folder: Path, result: str, epochs: int) -> Path:
    """The checkpoint that a training leaves to the next step.

    Args:
        folder: its work dir.
        result: ``best``, if there is one, or ``last``.
        epochs: that were trained.

    Raises:
        WorkError: there is none.
    """
    best = folder / "best.pth"
    if result == "best" and best.is_file():
        return best
    last, _ = newest_intact_checkpoint(folder)
    if last is None:
        raise WorkError(f"{folder}: after {epochs} epochs there is no checkpoint that can be read; expected one")
    return last


def transform_only(config: LinkedConfig, folder: Path) -> Path:
    """Apply the model transforms of a config to the weights of its ``load_from``, as training would before its start.

    Returns:
        The checkpoint.
    """
    cfg = copy.deepcopy(config)
    cfg.default_hooks, cfg.custom_hooks = dict.fromkeys(_NO_HOOKS), []
    runner = build_runner(cfg)
    runner.load_or_resume()
    state = {name: value.cpu() for name, value in bare_model(runner.model).state_dict().items()}
    trained_on = dataset_meta_of(read_checkpoint(config.load_from), config.load_from)
    meta: dict[str, Any] = dict(dataset_meta=trained_on or class_metainfo(config))
    if runner.compression_plan is not None:
        meta[PLAN_KEY] = runner.compression_plan.as_data()
    with whole_or_nothing(folder / _MODEL) as draft:
        torch.save(dict(meta=meta, state_dict=state), draft)
    config.dump(folder / Path(config.filename).name)  # with its hooks
    return folder / _MODEL


def step_rows(
    step: CompressionStep, config: LinkedConfig, checkpoint: Path, digest: str, runtimes: Sequence[str] = ()
) -> Iterator[Row]:
    """Export and evaluate the result of a step, file by file; files that are there from an earlier run are kept.

    Args:
        step: the step.
        config: its config, with all references resolved.
        checkpoint: its result.
        digest: of all that decided it.
        runtimes: that are going to be timed; none: all that are installed.

    Raises:
        WorkError: a file does not agree with its model.
    """
    folder = checkpoint.parent
    file = folder / _ROWS
    saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    complexity: dict[tuple[int, int], Complexity] = {}
    for part in step.exports:
        # Without a stated precision it is that of the model, which is not loaded here.
        target = folder / _EXPORTS / "_".join(filter(None, (part.backend, part.precision, *part.input_suffix)))
        key = measuring_digest(config, digest, checkpoint.name, asdict(part), list(runtimes))
        entry = saved.get(target.name)
        if entry is None or entry["of"] != key or not (target / entry["name"]).is_file():
            exported = export(config, checkpoint, target, part)
            size = (exported.spec.input.height, exported.spec.input.width)
            if size not in complexity:
                complexity[size] = _complexity(config, checkpoint, size)
            row = _row(step, part, exported, complexity[size])
            row["metric on"] = _on_runtimes(row, part, exported, config, runtimes)
            entry = saved[target.name] = {"of": key, "name": exported.path.name, "row": row}
            with whole_or_nothing(file) as draft:
                draft.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
        yield {**entry["row"], "path": str(target / entry["name"])}


def _on_runtimes(
    row: Row, settings: ExportSettings, exported: Exported, config: LinkedConfig, runtimes: Sequence[str]
) -> dict[str, float | None]:
    """The metric of a file on each runtime that reads it.

    A file that gives the numbers of its model was evaluated on its own runtime; the others give the same. One of lower
    precision is evaluated on each, since they round differently.
    """
    exported_for = EXPORTERS[settings.backend].backend
    measured: dict[str, float | None] = {exported_for: exported.metrics["artifact"][row["metric"]]}
    is_same = isinstance(exported.spec.policy, Tolerance)
    for runtime in runtimes_of(exported.path, runtimes):
        if runtime not in measured:
            value = measured[exported_for]
            measured[runtime] = value if is_same else _evaluated(exported.path, runtime, config, row["metric"])
    return measured


def _evaluated(path: Path, runtime: str, config: LinkedConfig, metric: str) -> float | None:
    try:
        predictor = artifact_predictor(path, runtime)
    except UserError as error:
        MMLogger.get_current_instance().warning(f"{path}: not evaluated on {runtime}: {error}")
        return None
    value: float = evaluate(config, *predictor, check=False).metrics[metric]
    return value


def _complexity(config: LinkedConfig, checkpoint: Path, size: tuple[int, int]) -> Complexity:
    fused = fuse(load(config, checkpoint))
    return count_complexity(fused, fused.infer, size)


def _row(step: CompressionStep, settings: ExportSettings, exported: Exported, complexity: Complexity) -> Row:
    metrics = exported.metrics
    name = (step.config.get("default_hooks") or {}).get("checkpoint", {}).get("save_best")
    name = name if name in metrics["artifact"] else next(iter(metrics["artifact"]))
    backend = BACKENDS[EXPORTERS[settings.backend].backend]
    return {
        "step": step.name,
        "epochs": step.config.train_cfg.max_epochs if step.trains else 0,
        "file": " ".join((settings.backend, exported.spec.precision, *settings.input_suffix)),
        "input": f"{exported.spec.input.height}x{exported.spec.input.width}",
        "metric": name,
        "metric in PyTorch": metrics["pytorch"][name],
        "params M": complexity.params_m,
        "GFLOPs": complexity.gflops,
        "file MB": sum(part.stat().st_size for part in backend.parts(exported.path)) / 1e6,
        "precision": exported.spec.precision,  # of a model trained for integers not the default of the exporter
        "metrics": metrics,
    }
