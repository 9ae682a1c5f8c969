"""Whether an exported file gives what the model gives: matched detections, not raw rows.

Near-ties change places in a top-k; a detection is therefore compared with the nearest one of the same label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efftasks.structures.prediction import Prediction

__all__ = ["Tolerance", "VerifyReport", "compare_predictions"]


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be off.

    Attributes:
        box_px: pixels, on an image scaled so that its longer side is 640.
        score: absolute.
    """

    box_px: float = 0.05
    score: float = 1e-4


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and the worst that was found."""

    images: int
    detections: int
    unmatched: int  # no detection of that label within reach on the other side
    max_box_error_px: float  # at 640
    max_score_error: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether every detection was found again, within the tolerance."""
        return (
            self.detections > 0  # where every score ties with the last one, nothing was compared
            and self.unmatched == 0
            and self.max_box_error_px <= self.tolerance.box_px
            and self.max_score_error <= self.tolerance.score
        )

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        state = "passed" if self.passed else "FAILED"
        return (
            f"verify {state}: {self.detections} detections on {self.images} images, "
            f"boxes within {self.max_box_error_px:.2g} px at 640 (allowed {self.tolerance.box_px}), "
            f"scores within {self.max_score_error:.2g} (allowed {self.tolerance.score}), {self.unmatched} unmatched"
        )


def compare_predictions(
    reference: Sequence[Prediction],
    candidate: Sequence[Prediction],
    sizes: Sequence[tuple[int, int]],
    tolerance: Tolerance = Tolerance(),
) -> VerifyReport:
    """Compare the predictions of a model with those of its artifact on the same images.

    Args:
        reference: the model's, every detection it gives.
        candidate: the artifact's.
        sizes: (height, width) of the images in pixels.
        tolerance: what is allowed.

    Returns:
        The report. Each side's detections are looked for on the other. Where both lists have the same length, a
        detection that scores within the tolerance of the last one may be cut on one side only, and is left out.
    """
    detections = unmatched = 0
    box_error = score_error = 0.0
    for ours, theirs, (height, width) in zip(reference, candidate, sizes):
        scale = 640 / max(height, width)
        # Both lists are cut at the same number: near the cut a detection may be on one side only.
        cut = len(ours) == len(theirs) and len(ours) > 0
        floor = max(ours.scores.min(), theirs.scores.min()) + tolerance.score if cut else -1.0
        detections += int((ours.scores > floor).sum())
        for a, b in ((ours, theirs), (theirs, ours)):
            errors, missing = _match(a, b, floor, scale, tolerance)
            unmatched += missing
            if errors.size:
                box_error = max(box_error, float(errors[:, 0].max()))
                score_error = max(score_error, float(errors[:, 1].max()))
    return VerifyReport(len(reference), detections, unmatched, box_error, score_error, tolerance)


def _match(a: Prediction, b: Prediction, floor: float, scale: float, tolerance: Tolerance) -> tuple[np.ndarray, int]:
    """Errors (matched, 2) in box (pixels at 640) and score of each row of ``a`` from its nearest row of ``b``."""
    wanted = np.flatnonzero(a.scores > floor)
    if not len(wanted):
        return np.zeros((0, 2)), 0
    if not len(b):
        return np.zeros((0, 2)), len(wanted)
    boxes = np.abs(a.boxes[wanted, None] - b.boxes[None]).max(-1) * scale
    scores = np.abs(a.scores[wanted, None] - b.scores[None])
    cost = np.maximum(boxes / tolerance.box_px, scores / tolerance.score)
    cost[a.labels[wanted, None] != b.labels[None]] = np.inf
    nearest = cost.argmin(axis=1)
    found = np.isfinite(cost[np.arange(len(wanted)), nearest])
    rows = np.flatnonzero(found)
    errors = np.stack([boxes[rows, nearest[rows]], scores[rows, nearest[rows]]], axis=1)
    return errors, int((~found).sum())
