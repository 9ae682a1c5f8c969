"""``efftasks runtimes``: models by backends by precisions, verified and timed."""

from __future__ import annotations

import argparse
from pathlib import Path

from efftasks.cli.options import add_options, parse_options

EXAMPLES = """examples:
  efftasks runtimes work_dirs/mine/best.pth --out report/runtimes
  efftasks runtimes o2o dfine segformer --images photos/ --size 320 320 --backend onnx openvino ncnn
  efftasks runtimes work_dirs/mine/best.pth --precision int8 --eval --threads 1

A model is a checkpoint of a work dir (.pth), or a family or config, which has random weights and needs --images. Every
backend writes every precision that it has: what is verified is timed; what is refused or does not agree has its reason
below the table. `efftasks export --list` prints families and backends.

p50 and p90 are of whole predictions, from a uint8 image of the network's size to detections in its pixels; "network"
is the median of the file alone. The files of a model run in turn, in one process. "start" and the peak RSS are of a new
process: to import the runtime, load the file, and predict once. Of a page "network" is what the browser takes, if one
is installed; the other times are not measured.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.export.exporters.table import EXPORTERS

    precisions = dict.fromkeys(precision for exporter in EXPORTERS.values() for precision in exporter.precisions)
    parser = subparsers.add_parser(
        "runtimes",
        help="which backends and precisions take a model, and how fast they are",
        description="Export models with every backend in every precision, verify the files, and time them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="CHECKPOINT|FAMILY|CONFIG")
    parser.add_argument("--backend", nargs="+", choices=tuple(EXPORTERS), metavar="NAME", help="default: all")
    parser.add_argument("--precision", nargs="+", choices=tuple(precisions), help="default: all of each backend")
    parser.add_argument("--images", metavar="DIR", help="to verify and calibrate on (default: the data of the config)")
    parser.add_argument("--num-images", type=int, default=16, help="number of images to verify on (default 16)")
    parser.add_argument("--eval", action="store_true", help="also the metric of each file on the config's test data")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size (default: the config's)")
    parser.add_argument("--threads", type=int, help="threads of the runtimes (default: their choice)")
    parser.add_argument("--runs", type=int, default=50, help="timed predictions of each file (default 50)")
    parser.add_argument("--warmup", type=int, default=5, help="untimed predictions of each file before (default 5)")
    parser.add_argument(
        "--keep",
        metavar="DIR",
        help="keep the files there; a later run with the same models and settings times them without exporting again",
    )
    parser.add_argument("--out", metavar="STEM", help="write STEM.md, .json and .csv")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the table, print it, and write the report if asked to."""
    from efftasks.apis.runtime_table import RuntimeTableSettings, runtime_table
    from efftasks.bench.table import write_report
    from efftasks.export.exporters.table import EXPORTERS

    settings = RuntimeTableSettings(
        backends=tuple(args.backend or EXPORTERS),
        precisions=tuple(args.precision or ()),
        size=None if args.size is None else tuple(args.size),
        images=args.images,
        num_images=args.num_images,
        evaluate=args.eval,
        threads=args.threads,
        runs=args.runs,
        warmup=args.warmup,
        keep=None if args.keep is None else Path(args.keep),
        options=parse_options(args.cfg_options),
    )
    table = runtime_table(args.models, settings)
    print(table.to_markdown())
    print("\n" + ", ".join(f"{key} {value}" for key, value in table.environment.items()))
    if args.out:
        columns = (*table.columns, "reason")
        paths = write_report(Path(args.out), table.rows, columns, table.environment, table.to_markdown())
        print(", ".join(map(str, paths)))
    return 0
