"""Whether an exported file gives what the model gives: matched detections, not raw rows; and label maps.

Predictions are taken image by image and let go of: the masks of one image may take hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from efftasks.export.verify_agreement import AgreementComparison
from efftasks.export.verify_labels import LabelComparison
from efftasks.export.verify_match import Matches, check_same_parts, match
from efftasks.export.verify_report import DEFAULT_TOLERANCE, VerifyReport
from efftasks.imaging.prediction import Prediction
from efftasks.structures.comparison import Policy, Tolerance

__all__ = [
    "JointReport",
    "ObjectComparison",
    "Report",
    "Tolerance",
    "Verification",
    "VerifyReport",
    "compare_predictions",
    "objects_of",
    "with_objects",
]


class Report(Protocol):
    """The result of a comparison; as text, a sentence."""

    @property
    def passed(self) -> bool:
        """Whether the artifact agrees with the model."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        ...


def objects_of(report: Report) -> Report | None:
    """The report of the objects, if they were compared."""
    if isinstance(report, JointReport):
        return report.parts.get("objects")
    return report if isinstance(report, VerifyReport) else None


def with_objects(report: Report, objects: Report) -> Report:
    """A report with another one of the objects."""
    return JointReport({**report.parts, "objects": objects}) if isinstance(report, JointReport) else objects


@dataclass(frozen=True)
class JointReport:
    """The reports of a model that gives several kinds of things."""

    parts: dict[str, Report]

    @property
    def passed(self) -> bool:
        """Whether all of them passed."""
        return all(part.passed for part in self.parts.values())

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar: a dict for each part."""
        return {**{name: part.to_dict() for name, part in self.parts.items()}, "passed": self.passed}

    def __str__(self) -> str:
        return "; ".join(f"{name}: {part}" for name, part in self.parts.items())


class Verification:
    """Compares a model with its artifact, image by image, in everything that the artifact gives.

    Args:
        outputs: names of the artifact's outputs. One that gives keypoints without boxes looks into given ones: it has a
            row for each, and none is cut.
        policy: what is allowed.

    Raises:
        ValueError: the outputs are none that can be compared.
    """

    def __init__(self, outputs: Iterable[str], policy: Policy = DEFAULT_TOLERANCE) -> None:
        names = set(outputs)
        has_objects, has_labels = bool(names & {"boxes", "keypoints"}), bool(names & {"segmentation", "logits"})
        if not (has_objects or has_labels):
            raise ValueError(f"outputs: got {sorted(names)}, expected boxes, keypoints, segmentation or logits")
        self._objects = _object_comparison(policy, cut="boxes" in names) if has_objects else None
        self._labels = LabelComparison(policy.label_agreement) if has_labels else None

    def add(self, ours: Prediction, theirs: Prediction, size: tuple[int, int]) -> None:
        """Compare the predictions of one image.

        Args:
            ours: the model's, every detection it gives.
            theirs: the artifact's.
            size: (height, width) of the image in pixels.
        """
        if self._objects is not None:
            self._objects.add(ours, theirs, size)
        if self._labels is not None:
            self._labels.add(ours, theirs)

    def report(self) -> Report:
        """The report so far: of the objects or of the label maps, or both as one."""
        comparisons = {"objects": self._objects, "labels": self._labels}
        parts: dict[str, Report] = {name: part.report() for name, part in comparisons.items() if part is not None}
        return next(iter(parts.values())) if len(parts) == 1 else JointReport(parts)


class Objects(Protocol):
    """Compares the objects of a model with those of its artifact, image by image."""

    def add(self, ours: Prediction, theirs: Prediction, size: tuple[int, int]) -> None:
        """As :meth:`Verification.add`."""
        ...

    def report(self) -> Report:
        """The report so far."""
        ...


def _object_comparison(policy: Policy, cut: bool) -> Objects:
    return ObjectComparison(policy, cut) if isinstance(policy, Tolerance) else AgreementComparison(policy)


class ObjectComparison:
    """Compares the detections of a model with those of its artifact, image by image.

    Each side's detections are looked for on the other. Where both lists have the same length, a detection that scores
    within the tolerance of the last one may be cut on one side only, and is left out. Boxes and scores count of all
    others, masks and keypoints of those that score at least ``tolerance.least_score``, or of all where none does.

    Args:
        tolerance: what is allowed.
        cut: whether lists are the best of more.
        floor: detections that score no more are left out.
    """

    def __init__(self, tolerance: Tolerance = DEFAULT_TOLERANCE, cut: bool = True, floor: float = -1.0) -> None:
        self._tolerance = tolerance
        self._cut = cut
        self._floor = floor
        self._images = 0
        self._detections = 0
        self._matches: list[Matches] = []
        self._masks = self._keypoints = False  # whether there are any

    def add(self, ours: Prediction, theirs: Prediction, size: tuple[int, int]) -> None:
        """As :meth:`Verification.add`."""
        check_same_parts(ours, theirs)
        self._masks |= ours.masks is not None
        self._keypoints |= ours.keypoints is not None
        # Both lists are cut at the same number: near the cut a detection may be on one side only.
        cut = self._cut and len(ours) == len(theirs) and len(ours) > 0
        floor = max(ours.scores.min(), theirs.scores.min()) + self._tolerance.score if cut else self._floor
        self._images += 1
        self._detections += int((ours.scores > floor).sum())
        for a, b in ((ours, theirs), (theirs, ours)):
            self._matches.append(match(a, b, floor, 640 / max(size), self._tolerance))

    def report(self) -> VerifyReport:
        """The report so far."""
        errors = np.concatenate([np.zeros((0, 5)), *(matches.errors for matches in self._matches)])
        scores = np.concatenate([np.zeros(0), *(matches.scores for matches in self._matches)])
        kept = scores >= self._tolerance.least_score
        shapes = errors[kept] if kept.any() else errors
        worst = shapes.max(axis=0, initial=0)
        return VerifyReport(
            images=self._images,
            detections=self._detections,
            unmatched=sum(matches.unmatched for matches in self._matches),
            max_box_error_px=float(errors[:, 0].max(initial=0)),
            max_score_error=float(errors[:, 1].max(initial=0)),
            tolerance=self._tolerance,
            least_mask_iou=float(shapes[:, 2].min(initial=1)) if self._masks else None,
            max_keypoint_error_px=float(worst[3]) if self._keypoints else None,
            max_keypoint_score_error=float(worst[4]) if self._keypoints else None,
        )


def compare_predictions(
    reference: Iterable[Prediction],
    candidate: Iterable[Prediction],
    sizes: Iterable[tuple[int, int]],
    tolerance: Tolerance = DEFAULT_TOLERANCE,
) -> VerifyReport:
    """Compare the detections of a model with those of its artifact on the same images.

    Args:
        reference: the model's, every detection it gives.
        candidate: the artifact's.
        sizes: (height, width) of the images in pixels.
        tolerance: what is allowed.

    Returns:
        The report; see :class:`ObjectComparison`.
    """
    comparison = ObjectComparison(tolerance)
    for ours, theirs, size in zip(reference, candidate, sizes, strict=True):
        comparison.add(ours, theirs, size)
    return comparison.report()
