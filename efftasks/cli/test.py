"""``efftasks test``: evaluate a checkpoint or an exported artifact on the test data of a config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from efftasks.cli.options import add_options, add_skip_check, add_width, parse_options
from efftasks.cli.report_options import add_report, check_report, wants_record, write_report
from efftasks.cli.size_options import add_sizes, check_sizes, sized_predictor
from efftasks.cli.tile_options import add_tile_options, tile_settings

EXAMPLES = """examples:
  efftasks test my_config.py work_dirs/my_config/best.pth --out metrics.json
  efftasks test dfine-n-coco --cfg-options data_root=data/coco          a published checkpoint: efftasks zoo
  efftasks test my_config.py out/model.onnx --show-dir out/pictures     the artifact, on the same data
  efftasks test my_config.py out/model.onnx --report out/report         curves, errors by kind, pictures
  efftasks test my_config.py out/model.onnx --sizes 192 256 320         each input size, and a choice for each image
  efftasks test my_config.py out/model.onnx --exit-thresholds auto --beside small.onnx --plot curve.png
"""

_THRESHOLDS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # of size rules


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes

    suffixes = artifact_suffixes()
    parser = subparsers.add_parser(
        "test",
        help="evaluate a checkpoint or an exported artifact",
        description=f"Evaluate MODEL on the test data of CONFIG: a checkpoint (.pth), or an artifact ({suffixes}).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="path, or name of a shipped config; or of a published checkpoint, which has one",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"checkpoint (.pth) or artifact ({suffixes}); left out after the name of a published checkpoint",
    )
    parser.add_argument("--backend", choices=tuple(BACKENDS), help="runtime of an artifact (default: by its suffix)")
    parser.add_argument("--out", metavar="FILE", help="write the metrics as flat JSON")
    parser.add_argument("--show-dir", metavar="DIR", help="write pictures: ground truth left, predictions right")
    parser.add_argument("--show-num", type=int, default=16, help="number of pictures (default 16)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="minimum score of drawn detections (default 0.3)")
    add_report(parser)
    add_width(parser)
    group = add_sizes(parser, thresholds="+")
    group.add_argument("--fit-sizes", metavar="FILE", help="fit a rule to the test data, and write it to FILE")
    group.add_argument(
        "--fit-sizes-on",
        choices=("picture", "answer"),
        help="what the fitted rule looks at: a thumbnail of the picture (default), or the answer of the smallest size",
    )
    add_skip_check(parser)
    _add_exit(parser)
    add_options(parser)
    add_tile_options(parser)
    parser.set_defaults(run=run)


def _add_exit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of a network with an early exit")
    group.add_argument(
        "--exit-threshold", type=float, metavar="T", help="evaluate at this threshold (default: the model's)"
    )
    group.add_argument(
        "--exit-thresholds",
        nargs="+",
        metavar="T",
        help="a table of exit rate, metrics and latency at several thresholds, timed on the test data; auto: chosen by "
        "the scores of the test data",
    )
    group.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --exit-thresholds: exported files without an exit, evaluated and timed in the same run",
    )
    group.add_argument(
        "--plot", metavar="FILE", help="with --exit-thresholds: a picture of the metric over the mean latency"
    )
    group.add_argument("--threads", type=int, help="with --exit-thresholds: of the runtime (default: its choice)")
    group.add_argument("--rounds", type=int, help="with --exit-thresholds: timed calls on each image (default 3)")


def run(args: argparse.Namespace) -> int:
    """Evaluate the model, print the metrics, and write them and pictures if asked to."""
    from efftasks import apis
    from efftasks.apis.entry_predictors import entry_predictor
    from efftasks.apis.exits import CountedExits
    from efftasks.apis.zoo import config_and_checkpoint

    args.config, args.model = config_and_checkpoint(args.config, args.model)
    check_sizes(args)
    _check_size_options(args)
    _check_exit_options(args)
    check_report(args)
    options = parse_options(args.cfg_options)
    cfg = apis.load_config(args.config, options)
    if args.sizes:
        return _test_sizes(args, cfg)
    if args.exit_thresholds:
        return _exit_curve(args, cfg)
    threshold, tiles = args.exit_threshold, tile_settings(args)
    predict, classes = entry_predictor(cfg, args.model, args.backend, threshold, tiles, args.width)
    counted = CountedExits(predict)
    keep = args.show_num if args.show_dir else 0
    recording = dict(record=wants_record(args), model=args.model, keep_maps=8)
    result = apis.evaluate(cfg, counted, classes, keep=keep, check=not args.skip_check, **recording)
    metrics = result.metrics if counted.rate is None else {**result.metrics, "exit_rate": counted.rate}
    for key, value in metrics.items():
        print(f"{key:<20} {value:.4f}")
    if args.out:
        _write(args.out, metrics)
    if args.show_dir:
        apis.draw_comparison(cfg, result.predictions, args.show_dir, args.score_thr)
        print(f"pictures: {args.show_dir}")
    write_report(args, cfg, result)
    return 0


def _check_size_options(args: argparse.Namespace) -> None:
    from efftasks.structures.errors import UserError

    if args.sizes and args.show_dir:
        raise UserError("--show-dir: got it with --sizes, which tests several sizes; draw with efftasks predict")
    others = {
        "--tiles": args.tiles,
        "--exit-threshold": args.exit_threshold,
        "--exit-thresholds": args.exit_thresholds or None,
    }
    for name, value in others.items():
        if args.sizes and value is not None:
            raise UserError(f"{name}: got it with --sizes, expected one of them")
    if args.fit_sizes and args.size_rule:
        raise UserError("--fit-sizes: got it with --size-rule, expected one of them: a rule is fitted, or given")


def _check_exit_options(args: argparse.Namespace) -> None:
    """Options of the curve are for the curve, and others are not."""
    from efftasks.structures.errors import UserError

    of_curve = {
        "--beside": args.beside or None,
        "--plot": args.plot,
        "--threads": args.threads,
        "--rounds": args.rounds,
    }
    of_others = {
        "--show-dir": args.show_dir,
        "--tiles": args.tiles,
        "--width": args.width,
        "--exit-threshold": args.exit_threshold,
    }
    for name, value in (of_others if args.exit_thresholds else of_curve).items():
        if value is not None:
            got, expected = ("with", "one of them") if args.exit_thresholds else ("without", "both")
            raise UserError(f"{name}: got it {got} --exit-thresholds, expected {expected}")


def _test_sizes(args: argparse.Namespace, cfg: Any) -> int:
    """Evaluate an artifact at several sizes, and as a rule chooses among them."""
    from efftasks.apis.fitting_sizes import fit_size_rule
    from efftasks.apis.size_rows import run_sizes, size_columns, size_rows
    from efftasks.bench.table import to_markdown

    predictor = sized_predictor(args)
    runs = run_sizes(cfg, predictor, check=not args.skip_check)
    rule: Any = predictor.rule
    if args.fit_sizes:
        rule = fit_size_rule(predictor, runs, args.fit_sizes_on or "picture")
        rule.save(args.fit_sizes)
    rows = size_rows(cfg, predictor, runs, rule, args.size_threshold or _THRESHOLDS)
    columns = size_columns(rows)
    print(to_markdown([row | {columns[2]: f"{row[columns[2]]:.4f}"} for row in rows], columns))
    if args.fit_sizes:
        print(f"{args.fit_sizes}: fitted to these images, so the rows by rule are too good; test it on others")
    if args.out:
        _write(args.out, rows)
    return 0


def _exit_curve(args: argparse.Namespace, cfg: Any) -> int:
    """Measure the model at several thresholds, and print, write and draw that."""
    from efftasks.apis.exit_curve import CurveSettings, measure_exit_curve
    from efftasks.bench.exit_plot import draw_exit_curve
    from efftasks.bench.table import to_markdown
    from efftasks.structures.errors import UserError

    try:
        thresholds = () if args.exit_thresholds == ["auto"] else tuple(map(float, args.exit_thresholds))
    except ValueError:
        raise UserError(
            f"--exit-thresholds: got {' '.join(args.exit_thresholds)}, expected numbers from 0, or auto"
        ) from None
    rounds = {} if args.rounds is None else {"rounds": args.rounds}
    settings = CurveSettings(thresholds, tuple(args.beside), args.backend, args.threads, **rounds)
    curve = measure_exit_curve(cfg, args.model, settings)
    exact = ("threshold", curve.metric)
    rows = [{**row, **{key: f"{row[key]:.4f}" for key in exact if key in row}} for row in curve.rows]
    print(to_markdown(rows, list(dict.fromkeys(key for row in rows for key in row))))
    print("\n" + ", ".join(f"{key} {value}" for key, value in curve.environment.items()))
    for verdict in curve.verdicts:
        print(verdict)
    if args.out:
        _write(args.out, curve._asdict())
    if args.plot:
        print(draw_exit_curve(curve.rows, curve.metric, args.plot))
    return 0


def _write(path: str, data: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
