"""``efftasks test``: evaluate a checkpoint or an exported artifact on the test data of a config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from efftasks.cli.options import add_options, add_skip_check, parse_options

EXAMPLES = """examples:
  efftasks test my_config.py work_dirs/my_config/best.pth --out metrics.json
  efftasks test my_config.py out/model.onnx --show-dir out/pictures     the artifact, on the same data
"""


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
    parser.add_argument("config", metavar="CONFIG", help="path, or name of a shipped config")
    parser.add_argument("model", metavar="MODEL", help=f"checkpoint (.pth) or artifact ({suffixes})")
    parser.add_argument("--backend", choices=tuple(BACKENDS), help="runtime of an artifact (default: by its suffix)")
    parser.add_argument("--out", metavar="FILE", help="write the metrics as flat JSON")
    parser.add_argument("--show-dir", metavar="DIR", help="write pictures: ground truth left, predictions right")
    parser.add_argument("--show-num", type=int, default=16, help="number of pictures (default 16)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="minimum score of drawn detections (default 0.3)")
    add_skip_check(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate the model, print the metrics, and write them and pictures if asked to."""
    from efftasks import apis
    from efftasks.apis.entry_predictors import entry_predictor

    options = parse_options(args.cfg_options)
    cfg = apis.load_config(args.config, options)
    predict, classes = entry_predictor(cfg, args.model, args.backend)
    keep = args.show_num if args.show_dir else 0
    result = apis.evaluate(cfg, predict, classes, keep=keep, check=not args.skip_check)
    for key, value in result.metrics.items():
        print(f"{key:<20} {value:.4f}")
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(result.metrics, indent=2) + "\n", encoding="utf-8")
    if args.show_dir:
        apis.draw_comparison(cfg, result.predictions, args.show_dir, args.score_thr)
        print(f"pictures: {args.show_dir}")
    return 0
