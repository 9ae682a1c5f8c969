"""Options of ``efftasks predict`` for key frames."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction
    from efftasks.runtime.key_frames import KeyFrameSettings

AUTO = "auto"


def add_key_frame_options(parser: argparse.ArgumentParser) -> None:
    """Add the group of options."""
    group = parser.add_argument_group("video with key frames")
    group.add_argument(
        "--key-frames",
        nargs="?",
        const=AUTO,
        metavar="auto|N",
        help="run the network on key frames only, and carry detections in between: on those that have changed (auto), "
        "or on each N-th",
    )
    group.add_argument(
        "--key-frame-threshold",
        type=float,
        metavar="T",
        help="change from which a frame is a key frame, over the contrast of the picture (default 0.3)",
    )
    group.add_argument(
        "--max-interval", type=int, metavar="N", help="frames from a key frame to the next, at most (default 12)"
    )


def key_frame_settings(args: argparse.Namespace) -> KeyFrameSettings | None:
    """What the options say; None without ``--key-frames``.

    Raises:
        UserError: an option is out of range, or does not go with the others.
    """
    from efftasks.runtime.key_frames import KeyFrameSettings
    from efftasks.structures.errors import UserError

    by_change = {"threshold": args.key_frame_threshold, "max_interval": args.max_interval}
    given = {name: value for name, value in by_change.items() if value is not None}
    if given and args.key_frames != AUTO:
        option = "--key-frame-threshold" if "threshold" in given else "--max-interval"
        raise UserError(f"{option}: got it without --key-frames {AUTO}, expected both")
    if args.key_frames is None:
        return None
    if args.batch_size != 1:
        raise UserError(f"--batch-size: got {args.batch_size}, expected 1 with --key-frames: frames follow one another")
    if args.key_frames == AUTO:
        return KeyFrameSettings(**given)
    if not (args.key_frames.isascii() and args.key_frames.isdecimal()) or int(args.key_frames) < 1:
        raise UserError(f"--key-frames: got {args.key_frames!r}, expected '{AUTO}' or an integer from 1")
    return KeyFrameSettings(every=int(args.key_frames))


def counted(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
    """The predictions; at their end it prints how many were key frames."""
    count = carried = 0
    try:
        for prediction in predictions:
            count += 1
            carried += prediction.carried_from is not None
            yield prediction
    finally:
        print(f"key frames: {count - carried} of {count} frames")
