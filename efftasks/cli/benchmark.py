"""``efftasks benchmark``: parameters, FLOPs and measured latency side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  efftasks benchmark out/model.onnx
  efftasks benchmark o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640 out/model.onnx --out report/latency
  efftasks benchmark small.onnx large.onnx --backend onnxruntime openvino --threads 1 --runs 300
  efftasks benchmark backbone:HGNetV2,variant=b0 backbone:timm.repvit_m0_9 backbone:timm.resnet18 \\
      --backend torch onnxruntime openvino --size 224 224 --size 640 640 --baseline backbone:timm.resnet18 --out front
  efftasks benchmark out/model.onnx --images photos/

A model is an artifact (SUFFIXES), a checkpoint of a work dir (.pth), a config, or a backbone alone:
backbone:NAME[,argument=value...] with a registered name, or backbone:timm.NAME. Configs and backbones have random
weights and are fused; for runtimes of files they are exported on the way, with a batch of one.

All models run in turn, in one process, on one image, in float32. "end to end" is everything but reading the file: from
a uint8 image to detections in its pixels. GFLOPs count a multiply-add as two, GMACs as one; activations are what
convolutions and matrix products write. The peak RSS is measured in a separate process; in PyTorch most of it is PyTorch
and OpenMMLab. With --baseline, speed-up and FLOPs saved are against that model on the same backend, and gap is the
first over the second.

With --images exported files are run over real images instead: images per second of Predictor.stream from the files to
predictions, with and without pictures drawn and written, and of Predictor image by image; and of each the share of the
images per second of the session alone, which has its tensors in memory (median, least and most of --rounds).
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes

    parser = subparsers.add_parser(
        "benchmark",
        help="parameters, FLOPs and measured latency",
        description="Measure artifacts, configs, checkpoints and backbones on one or several runtimes.",
        epilog=EXAMPLES.replace("SUFFIXES", artifact_suffixes()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL|CONFIG")
    parser.add_argument(
        "--backend",
        nargs="+",
        metavar="NAME",
        help=f"torch, torch.compile, {', '.join(BACKENDS)} (default: torch, and for artifacts their own runtime)",
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
        help="input size of models without a fixed one; repeat for several rows",
    )
    parser.add_argument("--images", metavar="DIR", help="measure exported files from these images to predictions")
    parser.add_argument("--rounds", type=int, default=5, help="with --images: times over all images (default 5)")
    parser.add_argument("--readers", type=int, help="with --images: threads that read images (default: 1 or 2)")
    parser.add_argument("--runs", type=int, default=100, help="timed calls of each model (default 100)")
    parser.add_argument("--warmup", type=int, default=10, help="untimed calls of each model before (default 10)")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: the runtime's choice)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the torch backends (default cpu)")
    parser.add_argument("--baseline", metavar="MODEL", help="compare every row with this model's")
    parser.add_argument(
        "--width", type=float, metavar="W", help="one width of slimmable networks (default: all of them)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the models, print the table, and write the report if asked to."""
    from efftasks.apis.benchmarking import benchmark
    from efftasks.bench.environment import describe_environment
    from efftasks.bench.plot import draw_flops_against_latency
    from efftasks.bench.rows import BenchmarkSettings
    from efftasks.bench.table import to_markdown, write_report
    from efftasks.bench.throughput import COLUMNS, measure_throughput

    settings = BenchmarkSettings(
        backends=tuple(args.backend or ()),
        sizes=tuple((height, width) for height, width in args.size or ()),
        runs=args.runs,
        warmup=args.warmup,
        threads=args.threads,
        device=args.device,
        width=args.width,
    )
    if args.images is None:
        rows, columns, environment = benchmark(args.models, settings, args.baseline)
    else:
        rows = [
            row
            for model in dict.fromkeys(args.models)
            for row in measure_throughput(model, args.images, settings, args.rounds, args.readers)
        ]
        columns, environment = COLUMNS, describe_environment(args.threads)
    print(to_markdown(rows, columns))
    print("\n" + ", ".join(f"{key} {value}" for key, value in environment.items()))
    if args.out:
        stem = Path(args.out, "report") if args.out.endswith("/") or Path(args.out).is_dir() else Path(args.out)
        written = [*write_report(stem, rows, columns, environment)]
        if any(row.get("GFLOPs") for row in rows):
            written.append(draw_flops_against_latency(rows, Path(f"{stem}.png")))
        print(", ".join(map(str, written)))
    return 0
