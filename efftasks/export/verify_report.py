"""How far an exported detector may differ from its model, and how far it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from efftasks.structures.comparison import Tolerance

__all__ = ["DEFAULT_TOLERANCE", "Tolerance", "VerifyReport"]


DEFAULT_TOLERANCE = Tolerance()


@dataclass(frozen=True)
class VerifyReport:
    """Number of detections compared, and the largest differences; None for outputs that the model does not have."""

    images: int
    detections: int
    unmatched: int  # no detection of that label within reach on the other side
    max_box_error_px: float  # at 640
    max_score_error: float
    tolerance: Tolerance
    least_mask_iou: float | None = None  # masks that differ in tolerance.mask_pixels at most count as equal
    max_keypoint_error_px: float | None = None  # at 640
    max_keypoint_score_error: float | None = None

    @property
    def passed(self) -> bool:
        """Whether every detection has a match within the tolerance."""
        limits = self.tolerance
        return (
            self.detections > 0  # where every score ties with the last one, nothing was compared
            and self.unmatched == 0
            and self.max_box_error_px <= limits.box_px
            and self.max_score_error <= limits.score
            and (self.least_mask_iou is None or self.least_mask_iou >= limits.mask_iou)
            and (self.max_keypoint_error_px is None or self.max_keypoint_error_px <= limits.keypoint_px)
            and (self.max_keypoint_score_error is None or self.max_keypoint_score_error <= limits.keypoint_score)
        )

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        limits = self.tolerance
        if not self.detections and not self.unmatched:
            return f"verify FAILED: nothing was compared: {self._why_nothing()}"
        parts = [
            f"{self.detections} detections on {self.images} images",
            f"boxes within {self.max_box_error_px:.2g} px at 640 (allowed {limits.box_px})",
            f"scores within {self.max_score_error:.2g} (allowed {limits.score})",
        ]
        if self.least_mask_iou is not None:
            parts.append(f"masks with an IoU from {self.least_mask_iou:.5f} (expected {limits.mask_iou})")
        if self.max_keypoint_error_px is not None:
            parts.append(
                f"keypoints within {self.max_keypoint_error_px:.2g} px (allowed {limits.keypoint_px}), "
                f"their scores within {self.max_keypoint_score_error:.2g} (allowed {limits.keypoint_score})"
            )
        return f"verify {'passed' if self.passed else 'FAILED'}: {', '.join(parts)}, {self.unmatched} unmatched"

    def _why_nothing(self) -> str:
        if not self.images:
            return "there were no images; give a folder with some that can be read by --images"
        return (
            f"on {self.images} images every detection scores like the last one that is kept, so that it is chance "
            "which ones are; train the network further, or give images of what it was trained on by --images"
        )
