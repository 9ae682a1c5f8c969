"""``efftasks benchmark``: parameters, FLOPs and measured latency side by side."""

from __future__ import annotations

import argparse
import functools
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from efftasks.cli.quiet import quietly

COLUMNS = (
    "model",
    "backend",
    "input",
    "params M",
    "GFLOPs",
    "GMACs",
    "activations M",
    "file MB",
    "mean ms",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "iqr ms",
    "min ms",
    "peak RSS MB",
    "peak GPU MB",
    "speed-up",
    "FLOPs saved",
    "gap",
)

EXAMPLES = """examples:
  efftasks benchmark out/model.onnx
  efftasks benchmark o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640 out/model.onnx --out report/latency
  efftasks benchmark small.onnx large.onnx --backend onnxruntime openvino --threads 1 --runs 300
  efftasks benchmark backbone:HGNetV2,variant=b0 backbone:timm.repvit_m0_9 backbone:timm.resnet18 \\
      --backend torch onnxruntime openvino --size 224 224 --size 640 640 --baseline backbone:timm.resnet18 --out front

A model is an artifact (.onnx), a checkpoint of a work dir (.pth), a config, or a backbone alone:
backbone:NAME[,argument=value...] with a registered name, or backbone:timm.NAME. Configs and backbones have random
weights and are fused; for ONNX Runtime and OpenVINO they are exported on the way, with a batch of one.

All models run in turn, in one process, on one image, in float32. "end to end" is everything but reading the file, from
a uint8 picture to detections in its pixels. GFLOPs count a multiply-add as two, GMACs as one; activations are what
convolutions and matrix products write. The peak RSS is that of a process of its own; in PyTorch most of it is PyTorch
and OpenMMLab. With --baseline, speed-up and FLOPs saved are against that model on the same backend, and gap is the
first over the second.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "benchmark",
        help="parameters, FLOPs and measured latency",
        description="Measure artifacts, configs, checkpoints and backbones on one or several runtimes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL|CONFIG")
    parser.add_argument(
        "--backend",
        nargs="+",
        metavar="NAME",
        help="torch, torch.compile, onnxruntime, openvino (default: torch, and onnxruntime for artifacts)",
    )
    parser.add_argument(
        "--out", metavar="STEM|DIR", help="write STEM.md, .json, .csv and .png, or report.* into the folder"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="input size of what has no size of its own to keep; several for several rows",
    )
    parser.add_argument("--runs", type=int, default=100, help="timed calls of each (default 100)")
    parser.add_argument("--warmup", type=int, default=10, help="untimed calls of each before (default 10)")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: the runtime's choice)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the torch backends (default cpu)")
    parser.add_argument("--baseline", metavar="MODEL", help="compare every row with this model's")
    parser.set_defaults(run=run)


class Subject(NamedTuple):
    """A PyTorch model to measure."""

    label: str
    module: Any  # fused
    forward: Callable[[Any], object]
    graph: Any  # the module whose forward is exported
    size: tuple[int, int]


Row = tuple[dict[str, Any], Callable[[], float]]


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from tqdm import tqdm

    from efftasks.bench.environment import describe_environment
    from efftasks.bench.gap import add_gaps
    from efftasks.bench.latency import measure
    from efftasks.bench.plot import draw_flops_against_latency
    from efftasks.bench.table import to_markdown, write_report

    _check(args)
    table: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory(prefix="efftasks-benchmark-") as folder:
        # Silent where nobody watches.
        for model in tqdm(dict.fromkeys(args.models), desc="preparing", leave=False, disable=None):
            for row, call in _rows(model, args, Path(folder)):
                calls[str(len(table))] = call
                table.append(row)
        for key, stats in measure(calls, args.warmup, args.runs).items():
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
    if args.baseline:
        add_gaps(table, _label(args.baseline))
    columns = [column for column in COLUMNS if any(row.get(column) is not None for row in table)]
    environment = describe_environment(args.threads)
    print(to_markdown(table, columns))
    print("\n" + ", ".join(f"{key} {value}" for key, value in environment.items()))
    if args.out:
        stem = Path(args.out, "report") if args.out.endswith("/") or Path(args.out).is_dir() else Path(args.out)
        written = [*write_report(stem, table, columns, environment)]
        if any(row.get("GFLOPs") for row in table):
            written.append(draw_flops_against_latency(table, Path(f"{stem}.png")))
        print(", ".join(map(str, written)))
    return 0


def _check(args: argparse.Namespace) -> None:
    from efftasks.bench.engines import ENGINES
    from efftasks.structures.errors import UserError

    for name, least in (("runs", 1), ("warmup", 0), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name}: got {value}, expected an integer from {least}")
    for size in args.size or ():
        if min(size) < 1:
            raise UserError(f"--size: got {size[0]} {size[1]}, expected two integers from 1")
    for backend in args.backend or ():
        if backend not in ENGINES:
            raise UserError(f"--backend: got {backend!r}, expected one of {', '.join(ENGINES)}")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device: got cuda, but PyTorch sees no GPU here")
    if args.baseline is not None and args.baseline not in args.models:
        raise UserError(f"--baseline: got {args.baseline!r}, expected one of the models: {', '.join(args.models)}")


def _rows(model: str, args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    from efftasks.structures.suffixes import is_checkpoint

    sizes: list[tuple[int, int] | None] = [(size[0], size[1]) for size in args.size or ()] or [None]
    for size in sizes:
        if model.startswith("backbone:") or Path(model).suffix in ("", ".py") or is_checkpoint(model):
            yield from _module_rows(model, size, args, folder)
        else:
            yield from _artifact_rows(model, size, args)


def _subject(model: str, size: tuple[int, int] | None) -> Subject:
    return _backbone(model, size or (224, 224)) if model.startswith("backbone:") else _config(model, size)


def run_module(model: str, size: tuple[int, int], threads: int | None) -> None:
    """Build a config's model or a backbone and run it three times in PyTorch: what a process of its own does."""
    from efftasks.bench.engines import torch_call

    call = torch_call(_subject(model, size).forward, size, threads=threads)
    for _ in range(3):
        call()


def _artifact_rows(path: str, size: tuple[int, int] | None, args: argparse.Namespace) -> Iterator[Row]:
    import numpy as np

    from efftasks.bench.engines import FILE_ENGINES, file_call
    from efftasks.bench.latency import timed
    from efftasks.bench.memory import peak_rss_of, predict, run_file
    from efftasks.runtime.predictor import Predictor
    from efftasks.structures.errors import UserError

    backends = args.backend or ("onnxruntime",)
    for backend in backends:
        if backend not in FILE_ENGINES:
            raise UserError(f"--backend: got {backend!r}, allowed for {path} are {', '.join(FILE_ENGINES)}")
    predictor = Predictor(path, threads=args.threads, size=size)
    height, width = predictor.size
    row = {"model": path, "input": f"{height}x{width}", "file MB": Path(path).stat().st_size / 1e6}
    for backend in backends:
        if backend != "onnxruntime":
            memory = peak_rss_of(quietly, not args.debug, run_file, backend, path, (height, width), args.threads)
            call = file_call(backend, path, (height, width), args.threads)
            yield {**row, "backend": backend, "peak RSS MB": memory}, call
            continue
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        inputs = np.array(predictor.preprocess([image])[0])  # a copy: the predictor writes into its own
        memory = peak_rss_of(quietly, not args.debug, predict, path, args.threads, size, backend)
        yield {**row, "backend": backend}, timed(functools.partial(predictor.session.run, inputs))
        whole = {**row, "backend": "onnxruntime, end to end", "peak RSS MB": memory}
        yield whole, timed(functools.partial(predictor, image))


def _module_rows(model: str, size: tuple[int, int] | None, args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    import torch

    from efftasks.bench.complexity import count_complexity
    from efftasks.bench.engines import FILE_ENGINES, file_call, torch_call
    from efftasks.bench.memory import peak_rss_of, run_file
    from efftasks.export.exporters.onnx import write_graph

    subject = _subject(model, size)
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
    path = None
    for backend in args.backend or ("torch",):
        if backend in FILE_ENGINES:
            if path is None:
                path = folder / f"{len(list(folder.iterdir()))}.onnx"
                device = next(subject.module.parameters()).device  # the GPU, once a torch backend moved it there
                write_graph(subject.graph, torch.zeros(1, 3, *size, device=device), path)
            facts: dict[str, float | None] = {"file MB": path.stat().st_size / 1e6}
            facts["peak RSS MB"] = peak_rss_of(
                quietly, not args.debug, run_file, backend, str(path), size, args.threads
            )
            yield {**row, "backend": backend, **facts}, file_call(backend, path, size, args.threads)
            continue
        facts = {}
        if args.device == "cuda":
            subject.module.to("cuda")
            torch.cuda.reset_peak_memory_stats()
        call = torch_call(subject.forward, size, backend == "torch.compile", args.threads, args.device)
        name = backend
        if args.device == "cuda":
            call()
            facts["peak GPU MB"] = torch.cuda.max_memory_allocated() / 1e6
            name = f"{backend}, cuda"
        elif backend == "torch":
            facts["peak RSS MB"] = peak_rss_of(quietly, not args.debug, run_module, model, size, args.threads)
        yield {**row, "backend": name, **facts}, call


def _config(model: str, size: tuple[int, int] | None) -> Subject:
    from efftasks import apis
    from efftasks.export.exporters.onnx import Graph
    from efftasks.structures.errors import UserError
    from efftasks.structures.suffixes import is_checkpoint

    cfg = apis.load_config(_beside(Path(model)) if is_checkpoint(model) else model)
    fused = apis.fuse(apis.build(cfg))
    size = size or apis.input_size(cfg)
    divisor = fused.divisor
    if any(side % divisor for side in size):
        raise UserError(f"--size: got {size[0]} {size[1]}, expected multiples of {divisor} for {model}")
    return Subject(_label(model), fused, fused.infer, Graph(fused), size)


def _label(model: str) -> str:
    """What the table calls a model: a config by its name, everything else as it was given."""
    return Path(model).stem if Path(model).suffix == ".py" else model


def _beside(checkpoint: Path) -> Path:
    """The config that training left beside a checkpoint; its time does not depend on its weights."""
    from efftasks.structures.errors import UserError

    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such file")
    configs = sorted(checkpoint.parent.glob("*.py"))
    if len(configs) != 1:
        raise UserError(f"{checkpoint}: {len(configs)} configs beside it, expected the one of its work dir; name it")
    return configs[0]


def _backbone(model: str, size: tuple[int, int]) -> Subject:
    import ast

    import torch
    from mmengine.registry import DefaultScope

    from efftasks.models.backbones.base import build_backbone
    from efftasks.models.layers.fuse import fuse_model
    from efftasks.structures.errors import UserError

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
        fused = fuse_model(build_backbone(cfg))
    return Subject(model, fused, fused, fused, size)
