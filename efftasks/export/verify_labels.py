"""Whether an exported segmenter gives the label maps that the model gives: pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efftasks.imaging.prediction import Prediction
from efftasks.structures.comparison import Tolerance

__all__ = ["LabelComparison", "LabelReport", "compare_label_maps"]

LEAST_AGREEMENT = Tolerance().label_agreement


@dataclass(frozen=True)
class LabelReport:
    """What was compared, and how much of it agrees."""

    images: int
    pixels: int
    agreement: float  # share of all pixels with the same class
    worst_image_agreement: float
    least_agreement: float = LEAST_AGREEMENT

    @property
    def passed(self) -> bool:
        """Whether enough pixels agree."""
        return self.pixels > 0 and self.agreement >= self.least_agreement

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        state = "passed" if self.passed else "FAILED"
        if not self.pixels:
            return (
                "verify FAILED: nothing was compared: there were no images; give a folder with some that can be read "
                "by --images"
            )
        return (
            f"verify {state}: {100 * self.agreement:.4f} % of {self.pixels} pixels on {self.images} images agree "
            f"(expected {100 * self.least_agreement} %), {100 * self.worst_image_agreement:.4f} % on the worst image"
        )


class LabelComparison:
    """Compares the label maps of a model with those of its artifact, image by image.

    Args:
        least_agreement: share of the pixels that must have the same class.
    """

    def __init__(self, least_agreement: float = LEAST_AGREEMENT) -> None:
        self._least_agreement = least_agreement
        self._pixels: list[int] = []
        self._shares: list[float] = []

    def add(self, ours: Prediction, theirs: Prediction) -> None:
        """Compare the maps of one image. One of another size, or none, agrees nowhere."""
        assert ours.segmentation is not None
        same = theirs.segmentation is not None and ours.segmentation.shape == theirs.segmentation.shape
        self._pixels.append(ours.segmentation.size)
        self._shares.append(float((ours.segmentation == theirs.segmentation).mean()) if same else 0.0)

    def report(self) -> LabelReport:
        """The report so far."""
        total = sum(self._pixels)
        agreement = float(np.dot(self._pixels, self._shares) / total) if total else 0.0
        return LabelReport(len(self._pixels), total, agreement, min(self._shares, default=0.0), self._least_agreement)


def compare_label_maps(reference: Iterable[Prediction], candidate: Iterable[Prediction]) -> LabelReport:
    """Compare the label maps of a model with those of its artifact on the same images.

    A map of another size agrees nowhere.
    """
    comparison = LabelComparison()
    for ours, theirs in zip(reference, candidate, strict=True):
        comparison.add(ours, theirs)
    return comparison.report()
