"""Which detections of two predictions of one image are the same, and how far they differ.

Near-ties change places in a top-k; a detection is therefore compared with the nearest one of the same label.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efftasks.imaging.masks import box_windows
from efftasks.imaging.prediction import Prediction
from efftasks.structures.comparison import Tolerance

__all__ = ["Matches", "match"]


class Matches(NamedTuple):
    """The detections of one side that have a match on the other.

    Keypoints that a model does not give differ by 0, and masks have an IoU of 1.
    """

    scores: np.ndarray  # float (n,) of this side
    errors: np.ndarray  # float (n, 5): box px at 640, score, IoU of the masks, keypoint px at 640, keypoint score
    unmatched: int  # those without a match


def check_same_parts(ours: Prediction, theirs: Prediction) -> None:
    """Refuse predictions that cannot be compared.

    Raises:
        ValueError: only one of them has masks, or keypoints.
    """
    for field in ("masks", "keypoints"):
        if (getattr(ours, field) is None) != (getattr(theirs, field) is None):
            raise ValueError(f"{field}: got them of one side only, expected both to have them, or none")


def match(ours: Prediction, theirs: Prediction, floor: float, scale: float, tolerance: Tolerance) -> Matches:
    """Look for each detection of ``ours`` that scores above ``floor`` in ``theirs``.

    Args:
        ours: predictions of one image.
        theirs: of the same, with masks and keypoints as ``ours`` has.
        floor: detections that score no more are left out.
        scale: from pixels of the image to pixels at 640.
        tolerance: what errors are weighed by, and how near is a tie.
    """
    candidates = np.flatnonzero(ours.scores > floor)
    if not len(candidates) or not len(theirs):
        return Matches(np.zeros(0), np.zeros((0, 5)), len(candidates))
    boxes = np.abs(ours.boxes[candidates, None] - theirs.boxes[None]).max(-1) * scale
    scores = np.abs(ours.scores[candidates, None] - theirs.scores[None])
    cost = np.maximum(boxes / tolerance.box_px, scores / tolerance.score)
    cost[ours.labels[candidates, None] != theirs.labels[None]] = np.inf
    errors, matched_scores = [], []
    for row, i in enumerate(candidates):
        rivals = np.flatnonzero(cost[row] <= 1)  # they tie: what else they have decides
        if not len(rivals):
            rivals = cost[row].argmin(keepdims=True)
        if not np.isfinite(cost[row, rivals[0]]):
            continue
        shapes = [_shape_errors(ours, i, theirs, j, scale, tolerance) for j in rivals]
        best = min(range(len(rivals)), key=lambda k: (_weigh(shapes[k], tolerance), cost[row, rivals[k]]))
        errors.append([boxes[row, rivals[best]], scores[row, rivals[best]], *shapes[best]])
        matched_scores.append(ours.scores[i])
    return Matches(np.array(matched_scores), np.array(errors).reshape(-1, 5), len(candidates) - len(matched_scores))


class _ShapeErrors(NamedTuple):
    mask_iou: float = 1.0
    keypoint_px: float = 0.0
    keypoint_score: float = 0.0


def _weigh(errors: _ShapeErrors, tolerance: Tolerance) -> float:
    """The worst of the errors in units of what is allowed, 0 where all are within."""
    worst = max(
        (1 - errors.mask_iou) / max(1 - tolerance.mask_iou, 1e-9),
        errors.keypoint_px / tolerance.keypoint_px,
        errors.keypoint_score / tolerance.keypoint_score,
    )
    return worst if worst > 1 else 0.0


def _shape_errors(
    ours: Prediction, i: int, theirs: Prediction, j: int, scale: float, tolerance: Tolerance
) -> _ShapeErrors:
    errors = _ShapeErrors()
    if ours.masks is not None and theirs.masks is not None:
        a, b = _comparable(ours.masks[i], ours.boxes[i], theirs.masks[j], theirs.boxes[j])
        errors = errors._replace(mask_iou=_iou(a, b, tolerance.mask_pixels))
    if ours.keypoints is not None and theirs.keypoints is not None:
        off = np.abs(ours.keypoints[i] - theirs.keypoints[j]).max(axis=0, initial=0)
        errors = errors._replace(keypoint_px=float(off[:2].max()) * scale, keypoint_score=float(off[2]))
    return errors


def _comparable(
    mask: np.ndarray, box: np.ndarray, other: np.ndarray, other_box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (H, W) without the lines of pixels that only one of their boxes touches.

    A mask is cut to its box, at whole pixels: boxes that differ by a thousandth of a pixel may differ by such a line.
    """
    size = mask.shape
    windows = box_windows(np.stack([box, other_box]), (size[0], size[1]))
    if (windows[0] == windows[1]).all():
        return mask, other
    left, top = windows[:, :2].max(axis=0)
    right, bottom = windows[:, 2:].min(axis=0)
    shared = (slice(top, max(top, bottom)), slice(left, max(left, right)))
    return mask[shared], other[shared]


def _iou(a: np.ndarray, b: np.ndarray, free: int) -> float:
    """IoU of two masks; 1 where at most ``free`` pixels differ, as where both are empty."""
    both = np.count_nonzero(a & b)
    either = np.count_nonzero(a | b)
    return both / either if either - both > free else 1.0
