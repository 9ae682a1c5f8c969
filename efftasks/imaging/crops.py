"""One object as one picture: the rule that cuts it out, for training, testing and the runtimes. numpy and OpenCV only.

The rule is the one that top-down pose estimators share since Simple Baselines (arXiv 1804.06208, section 3): the box is
made longer in one direction until it has the crop's aspect ratio, and larger by a factor about its centre.

Coordinates are continuous, the centre of the first pixel is 0.5. Maps are affine, (2, 3): ``p @ m[:, :2].T + m[:, 2]``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CROP_PADDING", "TOP_DOWN", "crop_matrix", "cut_crop", "invert_affine", "warp_points"]

TOP_DOWN = "top-down pose"  # the task of models that look into given boxes
CROP_PADDING = 1.25  # how much larger than the box a crop is


def crop_matrix(
    box: ArrayLike,
    size: tuple[int, int],
    padding: float = CROP_PADDING,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    degrees: float = 0.0,
) -> NDArray[np.float64]:
    """The map from pixels of the image to pixels of the crop.

    Args:
        box: xyxy in pixels of the image, of positive extent.
        size: (height, width) of the crop in pixels.
        padding: the crop is larger than the box by this factor.
        shift: of the centre, in widths and heights of the box.
        scale: makes the window larger by this factor, and what it shows smaller.
        degrees: turns the picture about the centre of the crop, clockwise as seen on the screen.

    Returns:
        float64 (2, 3).
    """
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    height, width = size
    aspect = width / height
    sides = np.array([x2 - x1, y2 - y1])
    window = max(sides[0], sides[1] * aspect) * padding * scale  # its width; the height follows
    centre = np.array([x1 + x2, y1 + y2]) / 2 + np.asarray(shift) * sides
    angle = np.deg2rad(degrees)
    turn = width / window * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([turn, (np.array([width, height]) / 2 - turn @ centre)[:, None]])


def invert_affine(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map (2, 3) back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.hstack([back, -back @ matrix[:, 2:]])


def warp_points(points: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (..., 2 or more) under a map: x and y move, what follows them (visibility, score) stays.

    Returns:
        float32, of the same shape.
    """
    moved = points[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved, points[..., 2:]], axis=-1).astype(np.float32)


def cut_crop(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], pad_value: float = 114.0
) -> NDArray[np.uint8]:
    """What a map shows of an image, interpolated bilinearly.

    Args:
        image: uint8 (H, W, 3).
        matrix: (2, 3), from pixels of the image to pixels of the crop.
        size: (height, width) of the crop.
        pad_value: of pixels outside of the image, 0..255.

    Returns:
        uint8 (height, width, 3).
    """
    between = matrix.copy()  # OpenCV counts from the centre of the first pixel, not from its corner
    between[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    crop = cv2.warpAffine(image, between, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(pad_value,) * 3)
    return np.asarray(crop, np.uint8)
