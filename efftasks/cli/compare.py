"""``efftasks compare``: whether models differ on the same images, and where."""

from __future__ import annotations

import argparse

from efftasks.cli.options import add_options, add_skip_check, parse_options

EXAMPLES = """examples:
  efftasks compare best.pth out/model.onnx out/int8/model.onnx --out compare
  efftasks compare work_dirs/a/best.pth work_dirs/b/best.pth --config data_config.py --out compare
  efftasks compare a_config.py:a.pth b_config.py:b.pth --out compare
  efftasks compare report_a report_b --out compare           folders of efftasks test --report; nothing is run

All models are compared with the first. Each metric has a 95 % interval from a bootstrap over the images, each
difference as well, from the same resamples; the verdict says whether these images show a difference, and which
difference they would not show. p is adjusted for the number of verdicts (Holm).

All models are evaluated on the test data of --config, or of the config of the first checkpoint. A checkpoint is run
with the config beside it, or with that of CONFIG:CHECKPOINT. Records of evaluations are kept in the folder of --out and
used again as long as model, config and data are the same.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        help="whether models differ on the same images, and where",
        description="Compare checkpoints, exported files and reports on the same images, and write a page about it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="two or more: a checkpoint (or CONFIG:CHECKPOINT), an exported file, or the folder of a report",
    )
    parser.add_argument("--config", help="whose test data are used (default: the config of the first checkpoint)")
    parser.add_argument("--out", metavar="DIR", default="compare", help="folder of the page (default: compare)")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--runs", type=int, default=100, help="timed calls of each model; 0: none (default 100)")
    parser.add_argument("--threads", type=int, help="threads of the runtimes (default: their choice)")
    parser.add_argument("--pictures", type=int, default=12, help="images in the page (default 12)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="minimum score of drawn detections (default 0.3)")
    add_skip_check(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare the models, print tables and verdicts, and write the page."""
    from efftasks.apis.comparing import CompareSettings, compare
    from efftasks.bench.table import to_markdown
    from efftasks.reports.comparison import cost_table, main_table

    settings = CompareSettings(
        resamples=args.resamples,
        seed=args.seed,
        runs=args.runs,
        threads=args.threads,
        pictures=args.pictures,
        score_thr=args.score_thr,
        check=not args.skip_check,
    )
    compared = compare(args.models, args.out, args.config, parse_options(args.cfg_options), settings)
    comparison = compared.comparison
    for rows in filter(None, (main_table(comparison), cost_table(comparison))):
        print(to_markdown(rows, list(rows[0])) + "\n")
    print("\n".join(comparison.verdicts))
    print(f"\n{comparison.images} images, {comparison.resamples} resamples")
    print(", ".join(map(str, (compared.page, *compared.data))))
    return 0
