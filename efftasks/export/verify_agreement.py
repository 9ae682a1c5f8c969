"""Whether an exported file of lower precision finds what its model finds: detections matched by IoU, and metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efftasks.export.verify_match import check_same_parts
from efftasks.imaging.prediction import Prediction
from efftasks.structures.comparison import DetectionAgreement, policy_to_dict

__all__ = ["AgreementComparison", "AgreementReport"]

_NEVER = -9.0  # below all that pairs can have


@dataclass(frozen=True)
class AgreementReport:
    """Detections of the model, and how many of them the file gives."""

    images: int
    detections: int  # of both sides, that score enough
    matched: int
    max_score_error: float  # of what is matched
    policy: DetectionAgreement

    @property
    def share(self) -> float:
        """Share of the detections that have a match."""
        return self.matched / self.detections if self.detections else 0.0

    @property
    def passed(self) -> bool:
        """Whether enough detections have a match."""
        return self.detections > 0 and self.share >= self.policy.least_share

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "policy": policy_to_dict(self.policy), "share": self.share, "passed": self.passed}

    def __str__(self) -> str:
        limits = self.policy
        if not self.detections:
            return (
                f"verify FAILED: nothing was compared: on {self.images} images neither side has a detection that "
                f"scores {limits.least_score}; train the network further, or give images of what it was trained on by "
                "--images"
            )
        return (
            f"verify {'passed' if self.passed else 'FAILED'}: {self.matched} of {self.detections} detections from a "
            f"score of {limits.least_score} on {self.images} images have one on the other side "
            f"({100 * self.share:.1f} %, expected {100 * limits.least_share:g} %), with an IoU of {limits.box_iou} and "
            f"scores within {limits.score}"
        )


class AgreementComparison:
    """Compares the detections of a model with those of its artifact, image by image.

    A detection of either side that scores enough is looked for on the other: one of its class, not yet taken, with
    boxes, scores, masks and keypoints within the policy; the nearest one is taken: by IoU, less what the
    scores differ.

    Args:
        policy: what is asked.
    """

    def __init__(self, policy: DetectionAgreement) -> None:
        self._policy = policy
        self._images = self._detections = self._matched = 0
        self._score_error = 0.0

    def add(self, ours: Prediction, theirs: Prediction, size: tuple[int, int]) -> None:
        """As :meth:`efftasks.export.verify.Verification.add`."""
        check_same_parts(ours, theirs)
        self._images += 1
        agree = self._agreement(ours, theirs, 640 / max(size))
        for nearness, reference, other in ((agree, ours, theirs), (agree.T, theirs, ours)):
            free = np.ones(len(other), bool)
            for i in np.flatnonzero(reference.scores >= self._policy.least_score):
                self._detections += 1
                candidates = np.where(free, nearness[i], _NEVER)
                if not candidates.size or candidates.max() == _NEVER:
                    continue
                j = int(candidates.argmax())
                free[j] = False
                self._matched += 1
                error = abs(float(reference.scores[i]) - float(other.scores[j]))
                self._score_error = max(self._score_error, error)

    def report(self) -> AgreementReport:
        """The comparison so far."""
        return AgreementReport(self._images, self._detections, self._matched, self._score_error, self._policy)

    def _agreement(self, ours: Prediction, theirs: Prediction, scale: float) -> np.ndarray:
        """How near the pairs (K, L) are that agree in all; of the others ``_NEVER``. ``scale`` is to pixels at 640."""
        policy = self._policy
        ious = _box_ious(ours.boxes, theirs.boxes)
        apart = np.abs(ours.scores[:, None] - theirs.scores[None])
        agree = (ious >= policy.box_iou) & (apart <= policy.score) & (ours.labels[:, None] == theirs.labels[None])
        least = policy.least_score  # pairs that both score less are never looked for
        agree &= (ours.scores[:, None] >= least) | (theirs.scores[None] >= least)
        for i, j in np.argwhere(agree):
            if ours.masks is not None and theirs.masks is not None:
                agree[i, j] &= _mask_iou(ours.masks[i], theirs.masks[j]) >= policy.mask_iou
            if ours.keypoints is not None and theirs.keypoints is not None:
                off = np.linalg.norm(ours.keypoints[i, :, :2] - theirs.keypoints[j, :, :2], axis=-1).mean() * scale
                agree[i, j] &= off <= policy.keypoint_px
        return np.where(agree, ious - apart, _NEVER)


def _box_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (K, L) of boxes (K, 4) and (L, 4) xyxy; 1 of two that are equal, though empty."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (a, b)]
    either = areas[0][:, None] + areas[1][None] - both
    same = (a[:, None] == b[None]).all(-1)
    return np.where(same, 1.0, both / np.maximum(either, 1e-9))


def _mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0
