"""The option of the least score, and the thresholds by class that an artifact states."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction

__all__ = ["DEFAULT_SCORE", "add_score", "choose_scores", "with_sufficient_scores"]

DEFAULT_SCORE = 0.3


def add_score(parser: argparse.ArgumentParser) -> None:
    """Add ``--score-thr``."""
    parser.add_argument(
        "--score-thr",
        type=float,
        help="minimum score of detections (default: for each class, what `efftasks test --write-thresholds` wrote "
        f"beside the file; else {DEFAULT_SCORE})",
    )


def choose_scores(args: argparse.Namespace) -> dict[str, float]:
    """Set ``args.score_thr`` where it is not given: to the least threshold of the artifact, or to the default.

    Returns:
        The artifact's threshold of each class, in the order of its labels; none where they are not used.

    Raises:
        UserError: its sidecar is broken.
    """
    from efftasks.runtime.sidecar import read_score_thresholds

    if args.score_thr is not None:
        return {}
    thresholds = read_score_thresholds(args.model)
    args.score_thr = min(thresholds.values(), default=DEFAULT_SCORE)
    if thresholds:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in thresholds.items())
        print(f"minimum scores of {args.model}: {listed}; --score-thr takes one for all")
    return thresholds


def with_sufficient_scores(predictions: Iterator[Prediction], thresholds: dict[str, float]) -> Iterator[Prediction]:
    """The predictions without detections that score less than the threshold of their class."""
    from contextlib import closing

    import numpy as np

    values = np.array(list(thresholds.values()))
    with closing(predictions):  # type: ignore[type-var]  # a generator
        for prediction in predictions:
            yield prediction.filter(values[prediction.labels]) if thresholds else prediction
