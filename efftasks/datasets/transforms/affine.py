"""Affine maps (2, 3) of continuous coordinates: pixel i covers [i, i + 1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from efftasks.imaging.crops import to_opencv_affine

__all__ = ["affine_about_center", "warp_boxes", "warp_image"]


def affine_about_center(
    size: tuple[int, int],
    degrees: float,
    shift: tuple[float, float],
    scale: float,
    stretch: Sequence[float] = (1.0, 1.0),
) -> np.ndarray:
    """The affine map (2, 3) that rotates, scales and stretches an image about its center and then translates it.

    Args:
        size: (height, width) of the image in pixels.
        degrees: rotation, clockwise on the screen.
        shift: translation (x, y) in pixels.
        scale: factor of both sides.
        stretch: factors (x, y) of width and height after the rotation.
    """
    height, width = size
    angle = np.deg2rad(degrees)
    cos, sin, (x, y) = np.cos(angle), np.sin(angle), stretch
    linear = scale * np.array([[x * cos, -x * sin], [y * sin, y * cos]])
    center = np.array([width / 2, height / 2])
    return np.hstack([linear, (center + np.asarray(shift) - linear @ center)[:, None]])


def warp_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) xyxy under an affine map: the smallest axis-aligned boxes (N, 4) xyxy around the warped corners."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    warped = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([warped.min(1), warped.max(1)], axis=1)


def warp_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """An image (H, W, 3) under an affine map, in a frame (height, width) filled with ``fill``.

    OpenCV interpolates between four pixels only, so an image that is shrunk to a half or less is first averaged down.
    """
    shrink = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink > 1:
        height, width = image.shape[:2]
        reduced = max(1, width // shrink), max(1, height // shrink)
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        matrix = matrix * [width / reduced[0], height / reduced[1], 1]
    return cv2.warpAffine(image, to_opencv_affine(matrix), size[::-1], flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3)
