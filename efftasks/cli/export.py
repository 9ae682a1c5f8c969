"""``efftasks export``: export a checkpoint to a verified file that runs without PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from efftasks.cli.options import add_options, add_width, parse_options

EXAMPLES = """examples:
  efftasks export my_config.py work_dirs/my_config/best.pth --out out
  efftasks export my_config.py best.pth --out out --eval              also AP of model and file on the test data
  efftasks export my_config.py best.pth --size 480 640                another input size than the config's
  efftasks export my_config.py best.pth --dynamic-size                any multiple of the model's divisor
  efftasks export my_config.py best.pth --images photos/              verify on these instead of the test data
  efftasks export my_config.py best.pth --precision int8 --eval       8-bit integers, calibrated on training images
  efftasks export my_config.py best.pth --precision int8 --input uint8   it takes pixels: faster in ONNX Runtime
  efftasks export my_config.py best.pth --precision int8 --sensitivity   also which layers lose most
  efftasks export my_config.py best.pth --exit split                  of a model with an early exit: two files
  efftasks export my_config.py best.pth --width 0.5                   one of the widths of a slimmable network
  efftasks export dfine-n-coco --images photos/ --out out             a published checkpoint: efftasks zoo
  efftasks export --list                                              backends, and the models they take
  efftasks export my_config.py best.pth --backend web --out page      a page that runs the model in a browser

The file is written, run and compared with the PyTorch model on real images; only then does the command succeed. A file
that does not agree is kept to look at, as *.unverified, and the exit code is 1.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.export.exporters.table import EXPORTERS
    from efftasks.structures.spec import DECODES, INPUTS

    precisions = dict.fromkeys(precision for exporter in EXPORTERS.values() for precision in exporter.precisions)
    default = next(iter(EXPORTERS))
    parser = subparsers.add_parser(
        "export",
        help="write a verified file that runs without PyTorch",
        description="Export a checkpoint and verify the file against the model on real images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--list", action=_List, help="print what each backend writes, and which families of models it takes; and exit"
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="path, or name of a shipped config; or of a published checkpoint, which has one",
    )
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="left out after the name of a published one"
    )
    parser.add_argument(
        "--backend", choices=tuple(EXPORTERS), default=default, help=f"what to write (default: {default})"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(precisions),
        help=f"of its numbers (default: the backend's, {EXPORTERS[default].precisions[0]} for {default})",
    )
    parser.add_argument(
        "--input",
        choices=INPUTS,
        default=INPUTS[0],
        help="float32 (default): normalized images, channels first; uint8: the pixels themselves, RGBA or BGRA as "
        "browsers and cameras have them",
    )
    parser.add_argument(
        "--decode",
        choices=DECODES,
        help="where the best candidates are selected: inside of the file, or outside, by the runtime: the file then "
        "gives all of them (default: the backend's, inside for most)",
    )
    parser.add_argument("--out", default="out", help="folder for the file and its sidecar (default: out)")
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
    parser.add_argument(
        "--x-anylabeling",
        action="store_true",
        help="also write the detector as a custom model of the labeling tool X-AnyLabeling (--backend onnx)",
    )
    parser.add_argument("--eval", action="store_true", help="also evaluate model and file on the test data")
    _add_exit(parser)
    add_width(parser)
    _add_quantization(parser)
    _add_page(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def _add_exit(parser: argparse.ArgumentParser) -> None:
    from efftasks.apis.export_settings import NO_EXIT
    from efftasks.structures.spec import EXITS

    group = parser.add_argument_group("of a model with an early exit")
    group.add_argument(
        "--exit",
        choices=(NO_EXIT, *EXITS),
        help="if: one file that decides itself, image by image; split: two files, and the runtime decides; none: the "
        "whole network without its exit (default: if where the backend writes it in this precision, else split)",
    )
    group.add_argument(
        "--exit-threshold",
        type=float,
        metavar="T",
        help="least exit score of an early answer that is taken, unless a run gives another one: 0 always, above 1 "
        "never (default: the model's)",
    )


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    from efftasks.structures.quantization import METHODS, WEIGHT_BITS

    group = parser.add_argument_group(
        "of --precision int8", "They override `quantization` of the config, whose defaults are in docs/export.md."
    )
    group.add_argument("--calib", type=int, metavar="N", help="number of training images to calibrate on (default 256)")
    group.add_argument(
        "--calib-images", metavar="DIR", help="calibrate on the images of a folder instead of the training data"
    )
    group.add_argument(
        "--calib-method",
        choices=METHODS,
        help="how ranges are taken from them; auto (default) compares by the metric on other training images",
    )
    group.add_argument("--weight-bits", type=int, choices=WEIGHT_BITS, help="of the weights (default 7)")
    group.add_argument(
        "--float-layers", nargs="+", metavar="NAME", help="layers that stay in float; * matches anything"
    )
    group.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure the error that each layer adds, leave the worst in float, and write sensitivity.json and "
        "quantization.py",
    )


def _add_page(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of --backend web")
    group.add_argument(
        "--ort-web",
        metavar="DIR",
        help="the unpacked npm package onnxruntime-web (default: npm fetches it into the user's cache)",
    )
    group.add_argument(
        "--single-file", action="store_true", help="one page with runtime and model inside, that opens as a file"
    )


class _List(argparse.Action):
    """Prints the tables of exporters and families, and exits: no config is needed then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from efftasks.apis.listing import exporters_table, families_table, missing_here

        print("\n\n".join(filter(None, (exporters_table(), families_table(), "\n".join(missing_here())))))
        parser.exit()


def _quantization(args: argparse.Namespace) -> dict[str, Any]:
    """The values of ``quantization`` that the command line states."""
    values = dict(
        images=args.calib, method=args.calib_method, weight_bits=args.weight_bits, float_layers=args.float_layers
    )
    return {name: value for name, value in values.items() if value is not None}


def run(args: argparse.Namespace) -> int:
    """Export and verify a checkpoint, and print the report."""
    from efftasks.apis.export_settings import ExportSettings
    from efftasks.apis.exporting import export
    from efftasks.apis.zoo import config_and_checkpoint
    from efftasks.export.exporters.table import EXPORTERS

    _check_x_anylabeling(args)
    settings = ExportSettings(
        backend=args.backend,
        precision=args.precision,
        input=args.input,
        decode=args.decode,
        size=None if args.size is None else tuple(args.size),
        dynamic_size=args.dynamic_size,
        dynamic_batch=not args.fixed_batch,
        exit=args.exit,
        exit_threshold=args.exit_threshold,
        opset=args.opset,
        images=args.images,
        num_images=args.num_images,
        evaluate=args.eval,
        width=args.width,
        quantization=_quantization(args),
        calib_images=args.calib_images,
        sensitivity=args.sensitivity,
        ort_web=args.ort_web,
        single_file=args.single_file,
    )
    options = parse_options(args.cfg_options)
    if args.output is not None:
        options["model.test_cfg.output"] = args.output
    config, checkpoint = config_and_checkpoint(args.config, args.checkpoint)
    exported = export(config, checkpoint, args.out, settings, options)
    if exported.sensitivity:
        print(_table(exported.sensitivity))
    print(exported.report)
    for name, values in exported.metrics.items():
        print(f"{name:<9}", "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
    sidecar = exported.path.with_suffix(".json")
    size = sum(file.bytes for file in exported.spec.files) / 1e6
    print(f"{exported.path} ({size:.1f} MB), {sidecar}")
    if args.x_anylabeling:
        from efftasks.export.x_anylabeling import write_x_anylabeling

        print(f"{write_x_anylabeling(exported.path, exported.spec)} (load it in X-AnyLabeling: Load Custom Model)")
    if exported.page_report is not None:
        print(exported.page_report)
    next_step = EXPORTERS[settings.backend].next_step
    if next_step is not None:
        print(f"verified in {EXPORTERS[settings.backend].backend}; next: {next_step(exported.path, exported.spec)}")
    if exported.page is not None:
        how = "open it" if args.single_file else f"serve it: python -m http.server --directory {exported.page.parent}"
        print(f"{exported.page} ({how})")
    return 0


def _check_x_anylabeling(args: argparse.Namespace) -> None:
    """What the options say already, before anything is exported."""
    from efftasks.structures.errors import UserError

    for option, expected in (("backend", ("onnx",)), ("input", ("float32",)), ("decode", (None, "inside"))):
        value = getattr(args, option)
        if args.x_anylabeling and value not in expected:
            raise UserError(f"--{option}: got {value} with --x-anylabeling, expected {expected[-1]}")


def _table(rows: Sequence[Any]) -> str:
    """The layers that add most to the error, as text."""
    from efftasks.bench.table import to_markdown

    top = [
        {
            "layer": row.name,
            "weights": row.weights,
            "SNR dB": round(row.decibels, 1),
            "share %": round(100 * row.share, 1),
        }
        for row in rows[:20]
    ]
    return to_markdown(top, list(top[0]))
