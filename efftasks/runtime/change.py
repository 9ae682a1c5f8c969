"""How much of a frame its key frame does not explain, on small gray pictures."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Change", "measure_change"]

_REGION = 7  # side of the regions that are compared, in pixels of a small picture
_TOLERANCE = 3  # side of the neighborhood in which a pixel may have moved
_LEAST_CONTRAST = 8.0  # of 255; below, noise would count as much
_INSIDE = 0.4  # weight of changes in boxes of known objects, which turn and bend


class Change(NamedTuple):
    """What a frame has that its key frame has not.

    Attributes:
        level: mean difference of gray values in the region where it is largest, over the standard deviation of the
            gray values of the key frame.
        uncovered: share of the frame that the key frame did not show.
    """

    level: float
    uncovered: float


def measure_change(
    key: NDArray[np.uint8], gray: NDArray[np.uint8], camera: NDArray[np.float64], boxes: NDArray
) -> Change:
    """Compare a frame with its key frame, moved as the camera.

    A pixel differs by how far it lies outside of the range of the moved picture in a neighborhood of 3 x 3, so that an
    estimate that is wrong by a pixel, and noise, make no difference. Brightness and contrast of the whole picture are
    made equal first: the exposure is no change.

    Args:
        key: the key frame, uint8 (h, w).
        gray: the frame, uint8 (h, w).
        camera: (2, 3), from the key frame to the frame, see :class:`efftasks.runtime.motion.Motion`.
        boxes: (K, 4) xyxy of known objects, in pixels of small pictures, where changes weigh less.
    """
    size = gray.shape[1], gray.shape[0]
    moved = cv2.warpAffine(key, camera, size)
    shown = cv2.warpAffine(np.full_like(key, 255), camera, size, flags=cv2.INTER_NEAREST)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(moved, mask=shown))
    now, spread = (float(value[0, 0]) for value in cv2.meanStdDev(gray, mask=shown))
    contrast = max(deviation, _LEAST_CONTRAST)
    gain = contrast / max(spread, _LEAST_CONTRAST)
    same = cv2.convertScaleAbs(gray, alpha=gain, beta=mean - gain * now)

    square = np.ones((_TOLERANCE, _TOLERANCE), np.uint8)
    above = cv2.subtract(same, cv2.dilate(moved, square))
    below = cv2.subtract(cv2.erode(moved, square), same)
    difference = cv2.bitwise_and(cv2.add(above, below), cv2.erode(shown, square, borderValue=255))
    regions = cv2.blur(difference.astype(np.float32), (_REGION, _REGION))
    weights = np.ones(gray.shape, np.float32)
    for x1, y1, x2, y2 in np.rint(boxes).astype(int).clip(0).tolist():
        weights[y1:y2, x1:x2] = _INSIDE
    return Change(float((regions * weights).max()) / contrast, 1 - cv2.countNonZero(shown) / shown.size)
