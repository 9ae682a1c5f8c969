"""Whether an exported network gives what the model gives where scores tell no detection from another.

A network that has not learned yet scores everything alike, saturated or not, and its boxes may lie far outside of the
image. Detections on the image are then no evidence: most of them are cut to its border, and which ones are kept is
chance. What is compared instead are the rows that both networks give, before they are brought to the image, each with
its own reading and preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efftasks.export.verify_report import DEFAULT_TOLERANCE
from efftasks.structures.comparison import Tolerance

__all__ = ["RawComparison", "RawOutputs", "RawReport", "is_beyond_pictures"]

LEAST_SHARE = 0.9  # of the rows; near-ties at the cut, and rounding of large values, take a few
RELATIVE = 1e-4  # of the size of a value that is beyond the picture
INPUT = 1e-3  # of the network inputs, in units of their standard deviation
_SATURATED = 1 - 1e-3  # from here on equal scores do not mean equal logits
_MOST_RIVALS = 20

RawOutputs = Mapping[str, np.ndarray]


def is_beyond_pictures(outputs: RawOutputs) -> bool:
    """Whether a model gives values that only an untrained one does.

    Boxes lie ten times further away than the picture is large, or logits of masks are in the thousands.
    """
    size = max(outputs["images"].shape[1:])
    boxes, masks = outputs["boxes"], outputs.get("masks", np.zeros(0))
    return bool(np.abs(boxes).max(initial=0) > 10 * size or np.abs(masks).max(initial=0) > 1000)


@dataclass(frozen=True)
class RawReport:
    """What was compared of the raw outputs, and how much of it agrees."""

    images: int
    rows: int
    agreeing: int
    worst_share: float  # of agreeing rows, on one image
    max_input_error: float
    least_share: float = LEAST_SHARE

    @property
    def passed(self) -> bool:
        """Whether on every image enough rows agree, and both sides made the same input of it."""
        return self.rows > 0 and self.worst_share >= self.least_share and self.max_input_error <= INPUT

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"compared": "raw outputs", **asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        state = "passed" if self.passed else "FAILED"
        if not self.rows:
            return f"verify {state}: nothing was compared: the network gives no rows; train it first"
        return (
            f"verify {state}: the scores of this network tell no detection from another (is it untrained?), so its raw "
            f"outputs were compared: {self.agreeing} of {self.rows} rows on {self.images} images agree, "
            f"{100 * self.worst_share:.1f} % on the worst image (expected {100 * self.least_share:g} %), network "
            f"inputs within {self.max_input_error:.2g} (allowed {INPUT})"
            + ("" if self.passed else "; rounding may decide values of an untrained network: train it first")
        )


class RawComparison:
    """Compares the rows of a model with those of its artifact, image by image, as sets.

    A row agrees with one of the other side that has its label, its box, its score, its mask and its keypoints, within
    the tolerance; that of boxes, masks and keypoints grows with values beyond the picture, that of scores shrinks where
    all are low.

    Args:
        tolerance: what is allowed.
    """

    def __init__(self, tolerance: Tolerance = DEFAULT_TOLERANCE) -> None:
        self._tolerance = tolerance
        self._rows: list[int] = []
        self._agreeing: list[int] = []
        self._input_error = 0.0

    def add(self, ours: RawOutputs, theirs: RawOutputs, wider: Callable[[], RawOutputs] | None = None) -> None:
        """Compare the outputs of one image.

        Args:
            ours: the model's: ``images`` (3, H, W), the network input; ``boxes`` (K, 4), ``scores`` (K,), ``labels``
                (K,), and ``masks`` and ``keypoints`` of K rows where it gives them.
            theirs: the artifact's.
            wider: the model's with more rows. It is asked for where many rows tie at the cut, so that it is chance
                which of them are kept: then it is enough that the model has such a row, with whatever label.
        """
        size = max(ours["images"].shape[1:])
        same = ours["images"].shape == theirs["images"].shape
        error = float(np.abs(ours["images"] - theirs["images"]).max()) if same else float("inf")
        self._input_error = max(self._input_error, error)
        agree = self._agreeing_rows(ours, theirs, size)
        tied = self._tied_at_cut(ours, theirs)
        if wider is not None and agree.mean() < LEAST_SHARE and (tied & ~agree).any():
            rows = {name: value[tied] for name, value in theirs.items() if name != "images"}
            agreeing = self._agreeing_rows(_one_label(wider()), _one_label(rows), size, alone=False)
            agree[tied] |= agreeing
        self._rows.append(max(len(ours["scores"]), len(theirs["scores"])))
        self._agreeing.append(int(agree.sum()))

    def report(self) -> RawReport:
        """The report so far."""
        shares = [agreeing / max(1, rows) for agreeing, rows in zip(self._agreeing, self._rows)]
        return RawReport(
            len(self._rows), sum(self._rows), sum(self._agreeing), min(shares, default=0.0), self._input_error
        )

    def _score_limit(self, *outputs: RawOutputs) -> float:
        best = max(float(values["scores"].max(initial=0)) for values in outputs)
        return self._tolerance.score * min(1.0, best / self._tolerance.least_score)

    def _tied_at_cut(self, ours: RawOutputs, theirs: RawOutputs) -> np.ndarray:
        """Which rows (K,) of the artifact score as the last one that is kept, and are not saturated."""
        last = max((float(values["scores"].min()) for values in (ours, theirs) if len(values["scores"])), default=0.0)
        scores = theirs["scores"]
        return (scores <= last + self._score_limit(ours, theirs)) & (scores < _SATURATED)

    def _agreeing_rows(self, ours: RawOutputs, theirs: RawOutputs, size: int, alone: bool = True) -> np.ndarray:
        """Which rows (K,) of the artifact have a row of the model that agrees: to themselves, where ``alone``."""
        limits = self._limits(theirs["boxes"], self._tolerance.box_px, size)
        boxes = np.abs(theirs["boxes"][:, None] - ours["boxes"][None]).max(-1) / limits[:, None]
        scores = np.abs(theirs["scores"][:, None] - ours["scores"][None]) / max(self._score_limit(ours, theirs), 1e-30)
        cost = np.maximum(boxes, scores)
        cost[theirs["labels"][:, None] != ours["labels"][None]] = np.inf
        free = np.ones(len(ours["scores"]), bool)
        agree = np.zeros(len(theirs["scores"]), bool)
        for i, row in enumerate(cost):
            rivals = np.flatnonzero((row <= 1) & free)
            rivals = rivals[np.argsort(row[rivals], kind="stable")][:_MOST_RIVALS]
            chosen = next((j for j in rivals if self._parts_agree(ours, j, theirs, i, size)), None)
            if chosen is not None:
                agree[i] = True
                free[chosen] = not alone
        return agree

    def _parts_agree(self, ours: RawOutputs, j: int, theirs: RawOutputs, i: int, size: int) -> bool:
        if "masks" in theirs:
            a, b = ours["masks"][j], theirs["masks"][i]
            if np.abs(a - b).max() > RELATIVE * max(1.0, float(np.abs(a).max())):
                return False
        if "keypoints" in theirs:
            a, b = ours["keypoints"][j], theirs["keypoints"][i]
            off = np.abs(a - b)
            limits = self._limits(a[:, :2], self._tolerance.keypoint_px, size)
            return bool((off[:, :2].max(1) <= limits).all() and off[:, 2].max() <= self._tolerance.keypoint_score)
        return True

    def _limits(self, values: np.ndarray, pixels: float, size: int) -> np.ndarray:
        """What is allowed of rows (K, n) of coordinates: pixels at 640, and more of those beyond the picture."""
        reach = np.abs(values).max(axis=1, initial=0)
        return np.where(reach > size, RELATIVE * reach, 0.0) + pixels * size / 640


def _one_label(outputs: RawOutputs) -> RawOutputs:
    return {**outputs, "labels": np.zeros_like(outputs["labels"])}
