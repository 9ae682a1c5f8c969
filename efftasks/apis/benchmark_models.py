"""What is measured of PyTorch models: configs, checkpoints of work dirs, and backbones alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.registry import DefaultScope

from efftasks.apis.building import build, fuse, input_size, load, of_width, widths_of
from efftasks.apis.formats import exporter_for, suffix_of
from efftasks.apis.forms import exported_graph
from efftasks.bench.complexity import count_complexity
from efftasks.bench.engines import TORCH_ENGINES, file_call, torch_call
from efftasks.bench.memory import peak_rss_of, run_file
from efftasks.bench.rows import BenchmarkSettings, Row, label_of
from efftasks.checkpoints.files import read_checkpoint
from efftasks.compression.folding import inference_model
from efftasks.compression.plan import plan_of
from efftasks.config import load_config
from efftasks.export.exporters.base import Exporter
from efftasks.models.backbones.base import build_backbone
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["config_beside", "model_rows", "run_model"]


class Subject(NamedTuple):
    """A PyTorch model to measure."""

    label: str
    module: Any  # fused
    forward: Callable[[Any], object]
    graph: Callable[[Exporter], Any]  # -> the module whose forward is exported
    size: tuple[int, int]


def model_rows(model: str, size: tuple[int, int] | None, settings: BenchmarkSettings, folder: Path) -> Iterator[Row]:
    """Rows of a model on each backend; for runtimes of files it is exported into ``folder``, with a batch of one.

    A model of several widths has rows of each, or of that of the settings.
    """
    widths = (settings.width,) if settings.width is not None else _widths(model)
    for width in widths:
        yield from _rows_of_width(model, width, size, settings, folder)


def _rows_of_width(
    model: str, width: float | None, size: tuple[int, int] | None, settings: BenchmarkSettings, folder: Path
) -> Iterator[Row]:
    subject = _subject(model, size, width)
    size = subject.size
    complexity = count_complexity(subject.module, subject.forward, size)
    row = {
        "model": subject.label,
        "input": f"{size[0]}x{size[1]}",
        "params M": complexity.params_m,
        "GFLOPs": complexity.gflops,
        "GMACs": complexity.gmacs,
        "activations M": complexity.activations_m,
    }
    paths: dict[str, Path] = {}  # of what each exporter wrote
    for backend in settings.backends or ("torch",):
        if backend not in TORCH_ENGINES:
            exporter = exporter_for(backend)
            if exporter.name not in paths:
                path = folder / f"{len(list(folder.iterdir()))}{suffix_of(exporter)}"
                device = next(subject.module.parameters()).device  # the GPU, once a torch backend moved it there
                paths[exporter.name] = exporter.write_graph(
                    subject.graph(exporter), torch.zeros(1, 3, *size, device=device), path
                )
            path = paths[exporter.name]
            megabytes = sum(part.stat().st_size for part in BACKENDS[backend].parts(path)) / 1e6
            columns: dict[str, float | None] = {"file MB": megabytes}
            columns["peak RSS MB"] = peak_rss_of(run_file, backend, str(path), size, settings.threads)
            yield {**row, "backend": backend, **columns}, file_call(backend, path, size, settings.threads)
            continue
        columns = {}
        if settings.device == "cuda":
            subject.module.to("cuda")
            torch.cuda.reset_peak_memory_stats()
        call = torch_call(subject.forward, size, backend == "torch.compile", settings.threads, settings.device)
        name = backend
        if settings.device == "cuda":
            call()
            columns["peak GPU MB"] = torch.cuda.max_memory_allocated() / 1e6
            name = f"{backend}, cuda"
        elif backend == "torch":
            columns["peak RSS MB"] = peak_rss_of(run_model, model, size, settings.threads, width)
        yield {**row, "backend": name, **columns}, call


def _subject(model: str, size: tuple[int, int] | None, width: float | None) -> Subject:
    if not model.startswith("backbone:"):
        return _config(model, size, width)
    if width is not None:
        raise UserError(f"--width: got {width:g}, but {model} is a backbone, which has one width")
    return _backbone(model, size or (224, 224))


def _widths(model: str) -> tuple[float | None, ...]:
    """The widths of a model; one None of a model that has one width alone."""
    if model.startswith("backbone:"):
        return (None,)
    if is_checkpoint(model):
        plan = plan_of(read_checkpoint(model), model)
        return (None,) if plan is None else tuple(plan.steps[-1].plan.get("widths", (None,)))
    cfg = load_config(model)
    return widths_of(build(cfg)) or (None,) if cfg.get("model_transforms") else (None,)


def run_model(model: str, size: tuple[int, int], threads: int | None, width: float | None = None) -> None:
    """Build a config's model or a backbone and run it three times in PyTorch: what a process of its own does."""
    call = torch_call(_subject(model, size, width).forward, size, threads=threads)
    for _ in range(3):
        call()


def _config(model: str, size: tuple[int, int] | None, width: float | None) -> Subject:
    if is_checkpoint(model):  # its weights too: it may be compressed
        network = load(config_beside(Path(model)), model, width=width)
        fused, cfg = fuse(network), network.cfg
    else:
        cfg = load_config(model)
        fused = fuse(of_width(build(cfg), width))
    size = size or input_size(cfg)
    divisor = fused.divisor
    if any(side % divisor for side in size):
        raise UserError(f"--size: got {size[0]} {size[1]}, expected multiples of {divisor} for {model}")
    label = label_of(model) if width is None else f"{label_of(model)} width {width:g}"
    return Subject(label, fused, fused.infer, lambda exporter: exported_graph(fused, exporter, size), size)


def config_beside(checkpoint: Path) -> Path:
    """The config that training left beside a checkpoint."""
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such file")
    configs = sorted(checkpoint.parent.glob("*.py"))
    if len(configs) != 1:
        raise UserError(f"{checkpoint}: {len(configs)} configs beside it, expected the one of its work dir; name it")
    return configs[0]


def _backbone(model: str, size: tuple[int, int]) -> Subject:
    # At commas that are not inside parentheses.
    name, *words = re.split(r",(?![^(]*\))", model.removeprefix("backbone:"))
    cfg: dict[str, Any] = dict(type=name)
    if name.startswith("timm."):
        cfg = dict(type="TimmBackbone", name=name.removeprefix("timm."))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{model}: got {word!r}, expected argument=value")
        try:
            cfg[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            cfg[key] = value
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        fused = inference_model(build_backbone(cfg))
    return Subject(model, fused, fused, lambda exporter: fused, size)
