"""Options of ``efftasks predict`` for pre-labels: predictions that labeling tools open."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efftasks.runtime.outputs import Writer


def add_label_options(group: argparse._ArgumentGroup) -> None:
    """Add the option to the group of what is written."""
    from efftasks.runtime.labels.formats import FORMATS

    group.add_argument(
        "--save-labels",
        nargs="+",
        choices=FORMATS,
        default=[],
        metavar="FORMAT",
        help=f"pre-labels to correct in a labeling tool, in OUT/FORMAT with the images: {', '.join(FORMATS)}",
    )


def check_label_options(args: argparse.Namespace) -> None:
    """Raise UserError where labels of an earlier run would be replaced."""
    from efftasks.runtime.labels.formats import check_folder

    for form in args.save_labels:
        check_folder(form, Path(args.out))


def label_writers(args: argparse.Namespace) -> Iterator[Writer]:
    """One for each format that was asked for."""
    from efftasks.runtime.labels.formats import open_labels

    for form in dict.fromkeys(args.save_labels):
        yield open_labels(form, Path(args.out), args.score_thr)
