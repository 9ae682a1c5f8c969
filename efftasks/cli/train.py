"""``efftasks train``: train a config."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from efftasks.cli.logger_options import add_loggers, apply_loggers
from efftasks.cli.options import add_options, add_skip_check, parse_options
from efftasks.cli.train_options import add_training, check_no_training, overrides_of, time_limit_of

EXAMPLES = """examples:
  efftasks train o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128
  efftasks train my_config.py --work-dir work_dirs/first --amp
  efftasks train my_config.py --resume                        continue from the newest intact checkpoint
  efftasks train my_config.py --cfg-options load_from=zoo:dfine-n-coco    start from a published checkpoint
  efftasks train my_config.py --epochs 50 --cfg-options data_root=/data/mine
  efftasks train my_config.py --logger mlflow wandb
  efftasks train my_config.py --max-minutes 30                as many epochs as fit
  efftasks train my_config.py --freeze backbone --cfg-options load_from=published.pth
  torchrun --nproc_per_node 2 -m efftasks train my_config.py --launcher pytorch
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a config",
        description="Train a config. The work dir gets the resolved config, checkpoints, a log and scalars. A config "
        "with compression steps runs them in order, and leaves a report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="path, or name of a shipped config")
    parser.add_argument("--work-dir", help="default: work_dirs/<name of the config>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="continue from CKPT, or from the newest intact checkpoint of the work dir",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=("auto", "bfloat16", "float16"),
        help="mixed precision: float16 on CUDA, and on a CPU bfloat16 if it is faster; a value forces it",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of PyTorch on a CPU (default: all cores, and fewer while other programs use them)",
    )
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_training(parser)
    add_skip_check(parser)
    add_loggers(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the config."""
    started = time.monotonic()  # PyTorch is imported below, and the user waits for that, too
    from efftasks import apis
    from efftasks.structures.errors import UserError

    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads: got {args.threads}, expected an integer from 1")
    options = {**parse_options(args.cfg_options), **overrides_of(args)}
    cfg = apis.load_config(args.config, options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(args.config).stem))
    apply_loggers(cfg, args)
    if cfg.get("compression"):
        return _compress(cfg, args)
    apis.train(
        cfg,
        amp=args.amp or False,
        resume=args.resume,
        launcher=args.launcher,
        threads=args.threads,
        check=not args.skip_check,
        batch_size=args.batch_size,
        keep_lr=args.keep_lr,
        limit=time_limit_of(args, started),
    )
    return 0


def _compress(cfg: Any, args: argparse.Namespace) -> int:
    """Run the compression steps of a config, and print their table."""
    from efftasks import apis
    from efftasks.bench.table import to_markdown
    from efftasks.structures.errors import UserError

    if args.launcher != "none":
        raise UserError(
            f"--launcher: got {args.launcher}, but compression steps run in one process, since they also export and "
            "measure; leave it out"
        )
    check_no_training(args)
    if args.epochs is not None:
        raise UserError(
            f"--epochs: got {args.epochs}, but each compression step states its own; for the dense model give "
            "--cfg-options max_epochs=N, for step 1 compression.steps.1.max_epochs=N"
        )
    if args.resume not in (None, "auto"):
        raise UserError(
            f"--resume: got {args.resume}, but compression steps resume from the work dir; give --resume alone"
        )
    report = apis.compress(
        cfg, amp=args.amp or False, resume=bool(args.resume), threads=args.threads, check=not args.skip_check
    )
    print(to_markdown(report.rows, report.columns))
    print(report.page)
    return 0
