"""Rules that choose the input size for an image, each with one threshold that trades accuracy for time.

A rule estimates for each size how much its answer loses against that of the best size, in [0, 1]. The smallest size
whose loss is at most the threshold is taken: at 0 nearly always a large one, at 1 always the smallest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from efftasks.imaging.prediction import Prediction
from efftasks.runtime.size_features import (
    ANSWER_FEATURES,
    LEAST_SCORE,
    PICTURE_FEATURES,
    answer_features,
    picture_features,
    sides_at,
)
from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import check_number, is_number
from efftasks.structures.spec_parts import ArtifactFile

__all__ = ["LOOKS_AT", "CascadeRule", "LearnedRule", "SizeRule", "load_rule"]

Size = tuple[int, int]  # (height, width) of a network input in pixels
LOOKS_AT = {"answer": ANSWER_FEATURES, "picture": PICTURE_FEATURES}
_SMALL = 12.0  # pixels of the network input: a box with shorter sides is on few cells of the finest map
_KIND = "efftasks size rule 1"


class SizeRule(Protocol):
    """What chooses among sizes, the smallest first."""

    def first(self, picture: np.ndarray) -> int:
        """The size to begin with, for a picture uint8 (H, W, 3) BGR: its index."""
        ...

    def next(self, index: int, answer: Prediction, sizes: Sequence[Size]) -> int:
        """The size to go on with after the answer of size ``index``; the same index if that is good enough."""
        ...


@dataclass
class CascadeRule:
    """Begins with the smallest size, and goes on to the next while objects are undecided or small.

    The loss of an answer is the larger of two shares of its detections with a score of at least 0.1, each weighted by
    its score: how undecided they are, 4 s (1 - s), and how many are smaller than 12 pixels of the network input. The
    second counts where the next size is larger, and not where a wider network follows at the same size.

    Args:
        threshold: in [0, 1], see the module.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_number("size threshold", self.threshold, 0, 1)

    def first(self, picture: np.ndarray) -> int:
        """The smallest."""
        return 0

    def next(self, index: int, answer: Prediction, sizes: Sequence[Size]) -> int:
        """The next larger where the answer may lose too much."""
        if index == len(sizes) - 1:
            return index
        smallest = _SMALL if sizes[index + 1] != sizes[index] else 0.0
        return index if self.loss(answer, sizes[index], smallest) <= self.threshold else index + 1

    def loss(self, answer: Prediction, size: Size, smallest: float = _SMALL) -> float:
        """The estimated loss of an answer at a size, in [0, 1]; 0 of one without detections.

        Args:
            answer: with boxes in pixels of the image.
            size: (height, width) of the network input that it is of.
            smallest: pixels of the network input, below which a side of a box is too short to be seen well.
        """
        shown = answer.scores >= LEAST_SCORE
        scores = answer.scores[shown].astype(np.float64)
        if not len(scores):
            return 0.0
        small = sides_at(answer, size)[shown] < smallest
        return float(max((scores * 4 * scores * (1 - scores)).sum(), (scores * small).sum()) / scores.sum())


@dataclass
class LearnedRule:
    """Linear estimates of the loss of each size, from the answer of the smallest size or from the picture alone.

    Args:
        looks_at: ``answer`` or ``picture``.
        sizes: (height, width) of the sizes it was fitted for, the smallest first.
        mean: of each feature over the images that it was fitted on.
        std: of each feature.
        weights: of each size a weight for each feature, and last the constant.
        files: the artifact of each size whose answers it was fitted on.
        threshold: in [0, 1], see the module.
    """

    looks_at: str
    sizes: tuple[Size, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    files: tuple[ArtifactFile, ...] = ()
    threshold: float = 0.05

    def __post_init__(self) -> None:
        check_number("size threshold", self.threshold, 0, 1)
        if self.looks_at not in LOOKS_AT:
            raise UserError(f"looks_at: got {self.looks_at!r}, expected one of {', '.join(LOOKS_AT)}")
        count = len(LOOKS_AT[self.looks_at])
        rows = (self.mean, self.std, *(row[:-1] for row in self.weights))
        if any(len(row) != count for row in rows) or len(self.weights) != len(self.sizes):
            raise UserError(
                f"mean, std, weights: got {len(self.mean)}, {len(self.std)} and {len(self.weights)} of them, expected "
                f"numbers for {count} features and {len(self.sizes)} sizes; fit the rule again"
            )
        if not all(is_number(value) for row in (self.mean, self.std, *self.weights) for value in row):
            raise UserError("mean, std, weights: got something that is no number; fit the rule again")

    def first(self, picture: np.ndarray) -> int:
        """The chosen size where the rule looks at pictures, otherwise the smallest."""
        return 0 if self.looks_at == "answer" else self.choose(picture_features(picture))

    def next(self, index: int, answer: Prediction, sizes: Sequence[Size]) -> int:
        """The chosen size, after the smallest."""
        if self.looks_at == "picture" or index > 0:
            return index
        return self.choose(answer_features(answer, sizes[0]))

    def choose(self, features: np.ndarray) -> int:
        """Features of an image -> index of the smallest size that loses little enough, or of that which loses least."""
        losses = self.losses(features)
        enough = np.flatnonzero(losses <= self.threshold)
        return int(enough[0] if len(enough) else losses.argmin())

    def losses(self, features: np.ndarray) -> np.ndarray:
        """Features (F,) or (N, F) -> estimated losses (S,) or (N, S) in [0, 1]."""
        scaled = (features - np.array(self.mean)) / np.array(self.std)
        weights = np.array(self.weights).T
        return np.clip(scaled @ weights[:-1] + weights[-1], 0, 1)

    def check(self, sizes: Sequence[Size], paths: Sequence[Path], origin: str) -> None:
        """Whether it was fitted for these sizes and files.

        Raises:
            UserError: it was not.
        """
        if tuple(sizes) != self.sizes:
            raise UserError(
                f"{origin}: got a rule for the sizes {_names(self.sizes)}, expected {_names(sizes)}; fit it again with "
                "--fit-sizes, or give those"
            )
        for path, file in zip(paths, self.files):
            file.check(path, origin)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"kind": _KIND, **asdict(self)}, indent=2) + "\n", encoding="utf-8")


def load_rule(path: str | Path) -> LearnedRule:
    """Read a rule that was saved.

    Raises:
        UserError: the file cannot be read, or is none of a rule.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected the file of a size rule") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}), expected the file of a size rule") from error
    if not isinstance(data, dict) or data.pop("kind", None) != _KIND:
        raise UserError(f"{path}: is no size rule, expected a file that `efftasks test --fit-sizes` has written")
    try:
        return LearnedRule(
            looks_at=data["looks_at"],
            sizes=tuple((int(height), int(width)) for height, width in data["sizes"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            weights=tuple(map(tuple, data["weights"])),
            files=tuple(ArtifactFile(**file) for file in data["files"]),
            threshold=data["threshold"],
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error}); fit the rule again") from error


def _names(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes)
