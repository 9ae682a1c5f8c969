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
    "file MB",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "iqr ms",
    "RSS MB",
)

EXAMPLES = """examples:
  efftasks benchmark out/model.onnx
  efftasks benchmark o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640 out/model.onnx --out report/latency
  efftasks benchmark small.onnx large.onnx --threads 1 --runs 300

All models run in turn, in one process, on one image. An artifact's time is the runtime's alone; "end to end" is
everything but reading the file, from a uint8 picture to detections in its pixels. GFLOPs count a multiply-add as two.
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
    parser.add_argument("--out", metavar="STEM", help="write STEM.md and STEM.json")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size of configs")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: the runtime's choice)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from efftasks.bench.environment import describe_environment
    from efftasks.bench.latency import measure
    from efftasks.bench.memory import peak_rss_mb
    from efftasks.bench.table import to_markdown, write_report

    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], object]] = {}
    for model in args.models:
        prepare = _artifact if Path(model).suffix == ".onnx" else _config
        for row, call in prepare(model, args):
            key = f"{row['model']} {row['backend']}"
            rows[key], calls[key] = row, call
    for key, stats in measure(calls, args.warmup, args.runs).items():
        rows[key].update({"p50 ms": stats.p50, "p90 ms": stats.p90, "p99 ms": stats.p99, "iqr ms": stats.iqr})
        rows[key]["RSS MB"] = peak_rss_mb()
    table = list(rows.values())
    environment = describe_environment(args.threads)
    print(to_markdown(table, COLUMNS))
    print("\n" + ", ".join(f"{key} {value}" for key, value in environment.items()))
    if args.out:
        markdown, data = write_report(args.out, table, COLUMNS, environment)
        print(f"{markdown}, {data}")
    return 0


def _artifact(path: str, args: argparse.Namespace) -> list[tuple[dict[str, Any], Callable[[], object]]]:
    import numpy as np

    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(path, threads=args.threads)
    height, width = predictor.size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    inputs = np.array(predictor.preprocess([image])[0])
    row = {"model": path, "input": f"{height}x{width}", "file MB": Path(path).stat().st_size / 1e6}
    return [
        ({**row, "backend": "onnxruntime"}, lambda: predictor.session.run(inputs)),
        ({**row, "backend": "onnxruntime, end to end"}, lambda: predictor(image)),
    ]


def _config(config: str, args: argparse.Namespace) -> list[tuple[dict[str, Any], Callable[[], object]]]:
    import torch

    from efftasks import apis
    from efftasks.bench.complexity import count_complexity

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    cfg = apis.load_config(config)
    model = apis.fuse(apis.build(cfg))
    size = tuple(args.size or apis.input_size(cfg))
    images = torch.zeros(1, 3, *size)

    def call() -> object:
        with torch.inference_mode():
            return model.detect(images)

    complexity = count_complexity(model, model.detect, size)
    row = {"model": Path(config).stem, "backend": "torch", "input": f"{size[0]}x{size[1]}"}
    return [({**row, "params M": complexity.params_m, "GFLOPs": complexity.gflops}, call)]
