"""``efftasks export``: export a checkpoint to a verified file that runs without PyTorch."""

from __future__ import annotations

import argparse

from efftasks.cli.options import add_options, parse_options

EXAMPLES = """examples:
  efftasks export my_config.py work_dirs/my_config/best.pth --out out
  efftasks export my_config.py best.pth --out out --eval              also AP of model and file on the test data
  efftasks export my_config.py best.pth --size 480 640                another input size than the config's
  efftasks export my_config.py best.pth --dynamic-size                any multiple of the model's divisor
  efftasks export my_config.py best.pth --images photos/              verify on these instead of the test data

The file is written, run and compared with the PyTorch model on real images; only then does the command succeed. A file
that does not agree is kept as model.rejected, with its suffix, to look at.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.export.exporters.table import EXPORTERS

    precisions = dict.fromkeys(precision for exporter in EXPORTERS.values() for precision in exporter.precisions)
    default = next(iter(EXPORTERS))
    parser = subparsers.add_parser(
        "export",
        help="write a verified file that runs without PyTorch",
        description="Export a checkpoint and verify the file against the model on real images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="path, or name of a shipped config")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--backend", choices=tuple(EXPORTERS), default=default, help=f"what to write (default: {default})"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(precisions),
        help=f"of its numbers (default: the backend's, {EXPORTERS[default].precisions[0]} for {default})",
    )
    parser.add_argument("--out", default="out", help="folder for the file and its sidecar model.json (default: out)")
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset, 18 or newer (default 18)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size (default: the config's)")
    parser.add_argument(
        "--dynamic-size", action="store_true", help="height and width are free, in steps of the divisor"
    )
    parser.add_argument("--fixed-batch", action="store_true", help="a batch of one, instead of any")
    parser.add_argument(
        "--output",
        choices=("labels", "coarse-labels", "logits"),
        help="semantic segmentation: the class of each pixel, by argmax after upsampling the scores (labels, the "
        "default) or before (coarse-labels: faster, coarser edges); or the scores at the stride of the head (logits)",
    )
    parser.add_argument("--images", metavar="DIR", help="images to verify on (default: the config's test data)")
    parser.add_argument("--num-images", type=int, default=16, help="number of images (default 16)")
    parser.add_argument("--eval", action="store_true", help="also evaluate model and file on the test data")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and verify a checkpoint, and print the report."""
    from efftasks.apis.exporting import ExportSettings, export

    settings = ExportSettings(
        backend=args.backend,
        precision=args.precision,
        size=None if args.size is None else tuple(args.size),
        dynamic_size=args.dynamic_size,
        dynamic_batch=not args.fixed_batch,
        opset=args.opset,
        images=args.images,
        num_images=args.num_images,
        evaluate=args.eval,
    )
    options = parse_options(args.cfg_options)
    if args.output is not None:
        options["model.test_cfg.output"] = args.output
    exported = export(args.config, args.checkpoint, args.out, settings, options)
    print(exported.report)
    for name, values in exported.metrics.items():
        print(f"{name:<9}", "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
    sidecar = exported.path.with_suffix(".json")
    print(f"{exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB), {sidecar}")
    return 0
