"""Options of trainings about where they are logged."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_loggers", "apply_loggers"]

NAMES = ("tensorboard", "wandb", "mlflow", "clearml")


def add_loggers(parser: argparse.ArgumentParser) -> None:
    """Add ``--logger`` and ``--logger-project``."""
    group = parser.add_argument_group("loggers, beside JSON lines and those of the config (TensorBoard)")
    group.add_argument(
        "--logger",
        nargs="+",
        choices=NAMES,
        default=[],
        metavar="NAME",
        help=f"log to these as well: {', '.join(NAMES)}; a failure of theirs is a warning",
    )
    group.add_argument("--logger-project", metavar="NAME", help="project of the runs (default: efftasks)")


def apply_loggers(cfg: Any, args: argparse.Namespace) -> None:
    """Add the loggers to a config that has its work dir.

    Raises:
        UserError: the package of one is not installed.
    """
    from pathlib import Path

    from efftasks.apis.loggers import add_loggers

    if args.logger or args.logger_project:
        # Compression trains in folders of the work dir, step by step.
        group = Path(cfg.work_dir).resolve().name if cfg.get("compression") else None
        add_loggers(cfg, args.logger, args.logger_project, group)
