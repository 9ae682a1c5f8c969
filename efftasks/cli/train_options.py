"""Options of ``efftasks train`` that say how long it trains, what learns, and with which batches."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.apis.time_limit import TimeLimit

__all__ = ["add_training", "check_no_training", "overrides_of", "time_limit_of"]


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    time = parser.add_argument_group("how long")
    time.add_argument("--epochs", type=int, metavar="N", help="train for N epochs; the schedule is adapted")
    time.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="end within M minutes, with the last validation: the number of epochs, at most --epochs, follows from "
        "measured times, and the schedule from it",
    )
    time.add_argument(
        "--patience", type=int, metavar="N", help="end after N epochs without a better score of a validation"
    )
    what = parser.add_argument_group("what learns, and by which batches")
    what.add_argument(
        "--freeze",
        nargs="+",
        metavar="PART",
        help="parts of the model that do not learn: backbone, neck, backbone.stem",
    )
    what.add_argument("--freeze-until", type=int, metavar="EPOCH", help="they learn from this epoch on, counted from 0")
    what.add_argument(
        "--batch-size",
        metavar="N",
        help="images of a batch, or auto for what fits the memory; learning rates are scaled with it",
    )
    what.add_argument("--keep-lr", action="store_true", help="do not scale learning rates with --batch-size")


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options that are overrides of a config.

    Raises:
        UserError: an option has no effect without another, or a number is out of range.
    """
    from efftasks.structures.errors import UserError

    for name in ("patience", "freeze_until"):
        value, least = getattr(args, name), 1
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}: got {value}, expected an integer from {least}")
    if args.freeze_until is not None and not args.freeze:
        raise UserError("--freeze-until: it says until when parts are frozen, expected --freeze PART beside it")
    if args.keep_lr and args.batch_size is None:
        raise UserError("--keep-lr: learning rates change with --batch-size alone, expected it beside --keep-lr")
    size = args.batch_size
    if not (size in (None, "auto") or (size.isdecimal() and int(size) > 0)):
        raise UserError(f"--batch-size: got {size!r}, expected an integer from 1, or auto")
    options: dict[str, Any] = {}
    if args.epochs is not None:
        options["train_cfg.max_epochs"] = args.epochs  # linking adapts the schedule
    if args.patience is not None:
        options["default_hooks.early_stopping"] = dict(type="EarlyStopping", patience=args.patience)
    if args.freeze:
        until = {} if args.freeze_until is None else dict(until=args.freeze_until)
        options["freeze"] = dict(_delete_=True, parts=args.freeze, **until)  # instead of the config's
    return options


def time_limit_of(args: argparse.Namespace, started: float) -> TimeLimit | None:
    """The time of the training; None for the number of epochs of the config.

    Args:
        args: of the command line.
        started: when the command started, on ``time.monotonic``.
    """
    from efftasks.apis.time_limit import TimeLimit

    return None if args.max_minutes is None else TimeLimit(args.max_minutes, args.epochs, started)


def check_no_training(args: argparse.Namespace) -> None:
    """Refuse the options for a config with compression steps, each of which states its own.

    Raises:
        UserError: one is given.
    """
    from efftasks.structures.errors import UserError

    for name in ("max_minutes", "patience", "freeze", "batch_size"):
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')}: it is for one training, but the config lists compression steps; state "
                "the setting in the options of a step"
            )
