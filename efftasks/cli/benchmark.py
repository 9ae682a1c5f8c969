"""``efftasks benchmark``: parameters, FLOPs and measured latency side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = (
    "model",
    "backend",
    "input",
    "params M",
    "GFLOPs",
    "GMACs",
    "file MB",
    "mean ms",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "iqr ms",
    "min ms",
    "peak RSS MB",
)

EXAMPLES = """examples:
  efftasks benchmark out/model.onnx
  efftasks benchmark o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640 out/model.onnx --out report/latency
  efftasks benchmark small.onnx large.onnx --threads 1 --runs 300

All models run in turn, in one process, on one image. An artifact's time is the runtime's alone; "end to end" is
everything but reading the file, from a uint8 picture to detections in its pixels. GFLOPs count a multiply-add as two,
GMACs as one. The peak RSS is that of a process of its own, which loads the artifact and predicts.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "benchmark",
        help="parameters, FLOPs and measured latency",
        description="Measure artifacts (.onnx) and configs (in PyTorch, fused, random weights).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL|CONFIG")
    parser.add_argument("--backend", help="runtime of the artifacts (default: by the suffix of the file)")
    parser.add_argument(
        "--out", metavar="STEM|DIR", help="write STEM.md and STEM.json, or report.md and report.json into the folder"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input size of configs and of artifacts of dynamic size"
    )
    parser.add_argument("--runs", type=int, default=100, help="timed calls of each (default 100)")
    parser.add_argument("--warmup", type=int, default=10, help="untimed calls of each before (default 10)")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: the runtime's choice)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from efftasks.bench.environment import describe_environment
    from efftasks.bench.latency import measure
    from efftasks.bench.table import to_markdown, write_report

    _check(args)
    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], object]] = {}
    for model in dict.fromkeys(args.models):
        prepare = _config if Path(model).suffix in ("", ".py") else _artifact
        for row, call in prepare(model, args):
            key = f"{model} {row['backend']}"
            rows[key], calls[key] = row, call
    for key, stats in measure(calls, args.warmup, args.runs).items():
        rows[key].update(
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
    table = list(rows.values())
    environment = describe_environment(args.threads)
    print(to_markdown(table, COLUMNS))
    print("\n" + ", ".join(f"{key} {value}" for key, value in environment.items()))
    if args.out:
        stem = Path(args.out, "report") if args.out.endswith("/") or Path(args.out).is_dir() else args.out
        markdown, data = write_report(stem, table, COLUMNS, environment)
        print(f"{markdown}, {data}")
    return 0


def _check(args: argparse.Namespace) -> None:
    from efftasks.structures.errors import UserError

    for name, least in (("runs", 1), ("warmup", 0), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name}: got {value}, expected an integer from {least}")
    if args.size is not None and min(args.size) < 1:
        raise UserError(f"--size: got {args.size}, expected two integers from 1")


def _artifact(path: str, args: argparse.Namespace) -> list[tuple[dict[str, Any], Callable[[], object]]]:
    import numpy as np

    from efftasks.bench.memory import peak_rss_of_artifact
    from efftasks.runtime.predictor import Predictor

    size = None if args.size is None else (args.size[0], args.size[1])
    predictor = Predictor(path, backend=args.backend, threads=args.threads, size=size)
    height, width = predictor.size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    inputs = np.array(predictor.preprocess([image])[0])  # a copy: the predictor writes into its own
    row = {"model": path, "input": f"{height}x{width}", "file MB": Path(path).stat().st_size / 1e6}
    memory = {"peak RSS MB": peak_rss_of_artifact(path, args.threads, size, args.backend)}
    return [
        ({**row, "backend": "onnxruntime"}, lambda: predictor.session.run(inputs)),
        ({**row, "backend": "onnxruntime, end to end", **memory}, lambda: predictor(image)),
    ]


def _config(config: str, args: argparse.Namespace) -> list[tuple[dict[str, Any], Callable[[], object]]]:
    import torch

    from efftasks import apis
    from efftasks.bench.complexity import count_complexity
    from efftasks.structures.errors import UserError

    cfg = apis.load_config(config)
    model = apis.fuse(apis.build(cfg))
    size = tuple(args.size or apis.input_size(cfg))
    divisor = model.backbone.divisor
    if any(side % divisor for side in size):
        raise UserError(f"--size: got {size[0]} {size[1]}, expected multiples of {divisor} for {config}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    images = torch.rand(1, 3, *size)  # on zeros a fresh network's activations may fade to slow denormal numbers

    def call() -> object:
        with torch.inference_mode():
            return model.detect(images)

    complexity = count_complexity(model, model.detect, size)
    row = {"model": Path(config).stem, "backend": "torch", "input": f"{size[0]}x{size[1]}"}
    cost = {"params M": complexity.params_m, "GFLOPs": complexity.gflops, "GMACs": complexity.gmacs}
    return [({**row, **cost}, call)]
