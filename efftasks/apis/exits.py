"""The early exit of a model: its threshold, and how many images leave there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from efftasks.export.exit_graphs import exit_of
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.exits import NEVER, check_threshold
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec

__all__ = ["CountedExits", "at_threshold", "held_to", "set_exit_threshold"]

Predict = Callable[[Sequence[dict[str, Any]]], Sequence[Prediction]]


def set_exit_threshold(model: Any, threshold: float) -> None:
    """Let a model with an early exit take the answers there whose score is at least this.

    Args:
        model: from :func:`efftasks.apis.load`.
        threshold: 0 always exits, a number above 1 never does.

    Raises:
        UserError: the model has no exit, or the threshold is no number from 0.
    """
    parts = exit_of(model)
    if parts is None:
        raise UserError(f"exit_threshold: got {threshold}, but {type(model).__name__} has no early exit; leave it out")
    parts.exit_threshold = check_threshold(threshold)


@contextmanager
def at_threshold(model: Any, threshold: float) -> Iterator[None]:
    """Let a model with an early exit have another threshold for some time."""
    parts = exit_of(model)
    assert parts is not None
    before = parts.exit_threshold
    parts.exit_threshold = threshold
    try:
        yield
    finally:
        parts.exit_threshold = before


@contextmanager
def held_to(model: Any, spec: ArtifactSpec) -> Iterator[None]:
    """Let a model decide as a file of it does: at the file's threshold, or never to exit where the file has no exit."""
    if exit_of(model) is None:
        yield
        return
    with at_threshold(model, NEVER if spec.early_exit is None else spec.early_exit.threshold):
        yield


class CountedExits:
    """What predicts, and counts the images that left early.

    Args:
        predict: entries of a data set -> predictions.

    Attributes:
        images: the number of images so far.
        exited: of them, those that left early.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self.images = self.exited = 0
        self._has_exit = False

    def __call__(self, entries: Sequence[dict[str, Any]]) -> Sequence[Prediction]:
        """Predict, and count."""
        predictions = self._predict(entries)
        self.images += len(predictions)
        self.exited += sum(bool(prediction.exited) for prediction in predictions)
        self._has_exit |= any(prediction.exited is not None for prediction in predictions)
        return predictions

    @property
    def rate(self) -> float | None:
        """The share of the images that left early, in [0, 1]; None of a network without an exit."""
        return self.exited / self.images if self._has_exit else None
