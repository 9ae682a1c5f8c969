"""How an artifact is compared with its model, as data: one policy for each precision. Standard library only.

Numbers of 32 bits are expected to agree; below that, matched detections and the metric on the data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import check_choice, check_integer, check_number

__all__ = ["POLICIES", "PRECISIONS", "DetectionAgreement", "Policy", "Tolerance", "policy_from", "policy_to_dict"]


@dataclass(frozen=True)
class Tolerance:
    """The same numbers, within what rounding does.

    Attributes:
        box_px: pixels, on an image scaled so that its longer side is 640.
        score: absolute.
        mask_iou: the least of an object's masks.
        mask_pixels: of an object's mask that may differ however small it is: a logit that ties with the
            threshold falls on either side of it.
        keypoint_px: pixels, as ``box_px``.
        keypoint_score: absolute.
        least_score: masks and keypoints are required of objects that score this much. Those of background rows are
            noise, and masks of noise lie near the threshold everywhere.
        label_agreement: least share of the pixels of label maps; classes that tie to the last bit may change places.
    """

    kind: ClassVar[str] = "tolerance"

    box_px: float = 0.05
    score: float = 1e-4
    mask_iou: float = 0.999
    mask_pixels: int = 1
    keypoint_px: float = 0.1
    keypoint_score: float = 1e-4
    least_score: float = 0.05
    label_agreement: float = 0.9999

    def __post_init__(self) -> None:
        for name in ("box_px", "score", "keypoint_px", "keypoint_score"):
            check_number(f"comparison.{name}", getattr(self, name), 0)
        for name in ("mask_iou", "least_score", "label_agreement"):
            check_number(f"comparison.{name}", getattr(self, name), 0, 1)
        check_integer("comparison.mask_pixels", self.mask_pixels, 0)


@dataclass(frozen=True)
class DetectionAgreement:
    """The same detections, and a metric that is little worse.

    Attributes:
        least_score: detections of either side that score this much are looked for on the other.
        box_iou: least IoU of the boxes of two detections of one class that are the same.
        score: how far their scores may lie apart.
        mask_iou: least IoU of their masks, where there are any.
        keypoint_px: most distance of their keypoints on average, in pixels at 640, where there are any.
        least_share: least share of the detections of all images that must have a match.
        label_agreement: least share of the pixels of label maps.
        metric_drop: how much lower each metric of the test data may be, as a share of the model's.
    """

    kind: ClassVar[str] = "detections"

    least_score: float = 0.3
    box_iou: float = 0.75
    score: float = 0.1
    mask_iou: float = 0.75
    keypoint_px: float = 8.0
    least_share: float = 0.9
    label_agreement: float = 0.98
    metric_drop: float = 0.02

    def __post_init__(self) -> None:
        check_number("comparison.keypoint_px", self.keypoint_px, 0)
        for entry in fields(self):
            if entry.name != "keypoint_px":
                check_number(f"comparison.{entry.name}", getattr(self, entry.name), 0, 1)


Policy = Tolerance | DetectionAgreement

# Precision -> what is asked of a file of it.
POLICIES: dict[str, Policy] = {
    "fp32": Tolerance(),
    "fp16": DetectionAgreement(
        box_iou=0.95,
        score=0.02,
        mask_iou=0.95,
        keypoint_px=2.0,
        least_share=0.99,
        label_agreement=0.999,
        metric_drop=0.005,
    ),
    "int8": DetectionAgreement(),
}
PRECISIONS = tuple(POLICIES)
_KINDS: dict[str, type[Tolerance] | type[DetectionAgreement]] = {
    kind.kind: kind for kind in (Tolerance, DetectionAgreement)
}


def policy_to_dict(policy: Policy) -> dict[str, Any]:
    """For JSON, with its ``kind``."""
    return {"kind": policy.kind, **asdict(policy)}


def policy_from(data: Any) -> Policy:
    """The inverse of :func:`policy_to_dict`; unknown fields are left for newer readers.

    Raises:
        UserError: no such kind, or a field is wrong.
    """
    if not isinstance(data, dict):
        raise UserError(f"comparison: got {data!r}, expected an object")
    check_choice("comparison.kind", data.get("kind"), tuple(_KINDS))
    kind = _KINDS[data["kind"]]
    return kind(**{entry.name: data[entry.name] for entry in fields(kind) if entry.name in data})
