"""Options of commands that write the report of an evaluation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.evaluation.records import EvaluationRecord

__all__ = ["add_report", "check_report", "wants_record", "write_report"]


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add ``--report`` and its companions."""
    group = parser.add_argument_group("a report with figures and pictures")
    group.add_argument(
        "--report",
        metavar="DIR",
        help="write a page (DIR/index.html) with accuracy by class and size, curves, errors by kind, confusion, "
        "calibration and pictures of errors, all figures as JSON and CSV, and the predictions",
    )
    group.add_argument(
        "--report-score-thr",
        type=float,
        metavar="T",
        help="score from which a detection counts in confusion and pictures (default: that of the highest F1)",
    )
    group.add_argument(
        "--report-iou-thr", type=float, metavar="T", help="IoU or OKS from which a detection is right (default 0.5)"
    )
    group.add_argument(
        "--write-thresholds",
        action="store_true",
        help="write the score of the highest F1 of each class beside the exported file; predict then uses it",
    )


def wants_record(args: argparse.Namespace) -> bool:
    """Whether all predictions are needed."""
    return bool(args.report or args.write_thresholds)


def check_report(args: argparse.Namespace) -> None:
    """Whether the options fit each other and the rest.

    Raises:
        UserError: they do not.
    """
    from efftasks.structures.errors import UserError
    from efftasks.structures.suffixes import is_checkpoint

    for option in ("report", "write_thresholds"):
        for other in ("sizes", "exit_thresholds"):
            if getattr(args, option) and getattr(args, other):
                names = [f"--{name.replace('_', '-')}" for name in (option, other)]
                raise UserError(
                    f"{names[0]}: got it with {names[1]}, which tests several settings; expected one of them"
                )
    for option in ("report_score_thr", "report_iou_thr"):
        value = getattr(args, option)
        name = f"--{option.replace('_', '-')}"
        if value is not None and not (args.report if option == "report_score_thr" else wants_record(args)):
            others = "--report" if option == "report_score_thr" else "--report or --write-thresholds"
            raise UserError(f"{name}: got it without {others}, expected both")
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name}: got {value:g}, expected a number from 0 to 1")
    if args.report_iou_thr is not None and args.report_iou_thr <= 0.1:
        raise UserError(f"--report-iou-thr: got {args.report_iou_thr:g}, expected more than 0.1, which is background")
    if args.write_thresholds and is_checkpoint(args.model):
        raise UserError(
            f"--write-thresholds: got a checkpoint, {args.model}, expected an exported file: export it first"
        )


def write_report(args: argparse.Namespace, cfg: Any, result: Any) -> None:
    """Write what was asked for, and print where it is."""
    from efftasks import apis

    iou_thr = 0.5 if args.report_iou_thr is None else args.report_iou_thr
    if args.report:
        settings = dict(score_thr=args.report_score_thr, iou_thr=iou_thr)
        print(f"report: {apis.write_report(cfg, result, args.report, **settings)}")
    if args.write_thresholds:
        _write_thresholds(args.model, result.record, iou_thr)


def _write_thresholds(model: str, record: EvaluationRecord, iou_thr: float) -> None:
    from efftasks.reports.evaluation_report import score_thresholds
    from efftasks.runtime.sidecar import write_score_thresholds

    thresholds = score_thresholds(record, iou_thr)
    path = write_score_thresholds(model, thresholds)
    print(f"{path}: score thresholds {', '.join(f'{name} {value:.3g}' for name, value in thresholds.items())}")
