"""``efftasks export``: checkpoint -> a verified file that runs without PyTorch."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.cli.train import add_options, parse_options

if TYPE_CHECKING:
    from efftasks.structures.spec import ArtifactSpec

EXAMPLES = """examples:
  efftasks export my_config.py work_dirs/my_config/best.pth --out out
  efftasks export my_config.py best.pth --out out --eval              also AP of model and file on the test data
  efftasks export my_config.py best.pth --size 480 640                another input size than the config's
  efftasks export my_config.py best.pth --dynamic-size                any multiple of the model's divisor
  efftasks export my_config.py best.pth --images photos/              verify on these instead of the test data

The file is written, run and compared with the PyTorch model on real images; only then does the command succeed. A file
that does not agree is kept as model.rejected.onnx, to look at.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="write a verified file that runs without PyTorch",
        description="Export a checkpoint and verify the file against the model on real images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="path, or name of a shipped config")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--backend", choices=("onnx",), default="onnx")
    parser.add_argument("--precision", choices=("fp32",), default="fp32")
    parser.add_argument("--out", default="out", help="folder for model.onnx and model.json (default: out)")
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset, 18 or newer (default 18)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size (default: the config's)")
    parser.add_argument(
        "--dynamic-size", action="store_true", help="height and width are free, in steps of the divisor"
    )
    parser.add_argument("--fixed-batch", action="store_true", help="a batch of one, instead of any")
    parser.add_argument(
        "--output",
        choices=("labels", "coarse-labels", "logits"),
        help="semantic segmentation: a class for each pixel, chosen after enlarging the scores (labels, the default) "
        "or before (coarse-labels: quicker, coarser edges); or the scores at the network's own stride (logits)",
    )
    parser.add_argument("--images", metavar="DIR", help="images to verify on (default: the config's test data)")
    parser.add_argument("--num-images", type=int, default=16, help="how many of them (default 16)")
    parser.add_argument("--eval", action="store_true", help="also the metrics of model and file on the test data")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, verify, and only then put the file in its place."""
    from efftasks import apis
    from efftasks.apis.verifying import verify
    from efftasks.export.exporters.onnx import export_onnx, write_metadata
    from efftasks.structures.errors import UserError, WorkError

    _check(args)
    options = parse_options(args.cfg_options)
    if args.output is not None:
        options["model.test_cfg.output"] = args.output
    cfg = apis.load_config(args.config, options)
    if "test_cfg" in cfg.model:  # a file takes whole images, and is compared on them, whatever the config tests in
        cfg.model.test_cfg = dict(output=cfg.model.test_cfg.get("output", "labels"))
    model = apis.load(cfg, args.checkpoint)
    if args.size is not None:
        apis.set_input_size(model.cfg, tuple(args.size))
    spec = _spec(apis.describe(model), args)
    if args.images is not None and spec.input.resize == "crop":
        raise UserError(f"--images: {spec.task} is verified in the boxes of the test data, and images have none")
    entries = _entries(model.cfg, args.images, args.num_images)

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        draft = export_onnx(apis.fuse(model), spec, Path(folder, "model.onnx"), opset=args.opset)
        report = verify(model, draft, [output.name for output in spec.outputs], entries)
        print(report)
        verification: dict[str, Any] = report.to_dict()
        if args.eval and report.passed:
            verification["metrics"] = _evaluate(model.cfg, model, draft)
        spec = spec.with_verify(verification)
        write_metadata(draft, spec)
        if not report.passed:
            rejected = out / "model.rejected.onnx"
            os.replace(draft, rejected)
            raise WorkError(f"{rejected}: does not agree with the PyTorch model, so it was not shipped ({report})")
        os.replace(draft, out / "model.onnx")
    spec.save(out / "model.json")
    print(f"{out / 'model.onnx'} ({(out / 'model.onnx').stat().st_size / 1e6:.1f} MB), {out / 'model.json'}")
    return 0


def _check(args: argparse.Namespace) -> None:
    from efftasks.structures.errors import UserError

    if args.num_images < 1:
        raise UserError(f"--num-images: got {args.num_images}, expected an integer from 1: verifying needs images")
    if args.size is not None and min(args.size) < 1:
        raise UserError(f"--size: got {args.size[0]} {args.size[1]}, expected two integers from 1")
    if args.images is not None and not Path(args.images).is_dir():
        raise UserError(f"--images: {args.images} is no folder, expected a folder of images")
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f"--out: {args.out} is a file, expected a folder")


def _spec(spec: ArtifactSpec, args: argparse.Namespace) -> ArtifactSpec:
    digest = hashlib.sha256(Path(args.checkpoint).read_bytes()).hexdigest()
    facts = replace(spec.input, dynamic_batch=not args.fixed_batch, dynamic_size=args.dynamic_size)
    return replace(spec, input=facts, source={"config": str(args.config), "checkpoint_sha256": digest})


def _entries(cfg: Any, folder: str | None, number: int) -> list[dict[str, Any]]:
    """What there is to verify on, spread evenly: entries of the test data, or the images of a folder."""
    from efftasks import apis
    from efftasks.imaging.images import UnreadableImage, read_image
    from efftasks.imaging.sources import find_images
    from efftasks.structures.errors import UserError

    entries: list[dict[str, Any]] = (
        apis.test_images(cfg) if folder is None else [dict(img_path=path, img_id=0) for path in find_images(folder)]
    )
    step = max(1, len(entries) // number)
    chosen = []
    for entry in entries[::step][:number]:
        try:
            read_image(entry["img_path"])
        except UnreadableImage as error:
            print(f"skipped: {error}")
        else:
            chosen.append(entry)
    if not chosen:
        place = folder or "the test data of the config"
        raise UserError(f"--images: {place} has no image that can be read, verifying needs some; give another folder")
    return chosen


def _evaluate(cfg: Any, model: Any, artifact: Path) -> dict[str, dict[str, float]]:
    from efftasks import apis
    from efftasks.apis.entry_predictors import artifact_predictor

    sources = {
        "pytorch": (lambda entries: apis.predict(model, entries), model.dataset_meta["classes"]),
        "artifact": artifact_predictor(artifact),
    }
    metrics = {name: apis.evaluate(cfg, *source).metrics for name, source in sources.items()}
    for name, values in metrics.items():
        print(f"{name:<9}", "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
    return metrics
