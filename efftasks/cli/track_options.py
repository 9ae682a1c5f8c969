"""Options of ``efftasks predict`` for tracks of objects through a video."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction
    from efftasks.runtime.sources import Source
    from efftasks.runtime.tracking import Tracker


def add_track_options(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    from efftasks.runtime.tracker_table import TRACKERS

    default = next(iter(TRACKERS))
    group = parser.add_argument_group("video with tracks, by the package trackers")
    group.add_argument(
        "--track",
        nargs="?",
        const=default,
        choices=tuple(TRACKERS),
        metavar="NAME",
        help=f"number the objects through the frames of a video, camera or folder: {', '.join(TRACKERS)} (default "
        f"{default})",
    )


def check_track_options(args: argparse.Namespace) -> None:
    """Raise UserError where ``--track`` needs a package that is not installed."""
    from efftasks.runtime.tracking import trackers_package

    if args.track is not None:
        trackers_package()


def model_score(args: argparse.Namespace) -> float:
    """The least score that the model is to give: with a tracker it may be below ``--score-thr``."""
    from efftasks.runtime.tracking import least_score

    return float(args.score_thr if args.track is None else least_score(args.track, args.score_thr))


def make_tracker(args: argparse.Namespace, source: Source) -> Tracker | None:
    """The tracker that was asked for, or None.

    Raises:
        UserError: the source is no video.
    """
    from efftasks.runtime.sources import check_sequence
    from efftasks.runtime.tracking import Tracker

    if args.track is None:
        return None
    check_sequence(source, "--track")
    return Tracker(args.track, args.score_thr, source.fps)


def tracked(predictions: Iterator[Prediction], tracker: Tracker | None) -> Iterator[Prediction]:
    """The predictions, with their tracks; at their end it prints how many there were."""
    from contextlib import closing

    with closing(predictions):  # type: ignore[type-var]  # a generator
        if tracker is None:
            yield from predictions
            return
        try:
            yield from map(tracker, predictions)
        finally:
            print(f"tracks: {tracker.count}")
