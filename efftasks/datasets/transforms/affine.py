"""Affine maps (2, 3) of continuous coordinates: pixel i covers [i, i + 1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from efftasks.imaging.crops import to_opencv_affine

__all__ = ["affine_about_centre", "warp_boxes", "warp_image"]


def affine_about_centre(
    size: tuple[int, int],
    degrees: float,
    shift: tuple[float, float],
    scale: float,
    stretch: Sequence[float] = (1.0, 1.0),
) -> np.ndarray:
    """The map (2, 3) that turns, scales and stretches about the centre of an image and then moves it.

    Args:
        size: (height, width) in pixels.
        degrees: clockwise as seen on the screen.
        shift: (x, y) in pixels.
        scale: factor.
        stretch: (x, y), factors of the turned image's width and height.
    """
    height, width = size
    angle = np.deg2rad(degrees)
    cos, sin, (x, y) = np.cos(angle), np.sin(angle), stretch
    turn = scale * np.array([[x * cos, -x * sin], [y * sin, y * cos]])
    center = np.array([width / 2, height / 2])
    return np.hstack([turn, (center + np.asarray(shift) - turn @ center)[:, None]])


def warp_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The upright hulls (N, 4) xyxy of boxes (N, 4) xyxy under a map."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def warp_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """An image (H, W, 3) under a map, in a frame (height, width), with ``fill`` around it.

    OpenCV looks at four pixels for each new one. Where more would fall on one, the image is averaged down first.
    """
    shrink = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink > 1:
        height, width = image.shape[:2]
        less = max(1, width // shrink), max(1, height // shrink)
        image = cv2.resize(image, less, interpolation=cv2.INTER_AREA)
        matrix = matrix * [width / less[0], height / less[1], 1]
    return cv2.warpAffine(image, to_opencv_affine(matrix), size[::-1], flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3)
