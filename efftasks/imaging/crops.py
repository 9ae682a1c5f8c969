"""Crops of single objects for top-down pose estimation: one rule for training, testing and the runtimes.

The rule is that of Simple Baselines (arXiv 1804.06208, section 3): one side of the box is extended until the box has
the aspect ratio of the crop, and the box is enlarged by a factor about its center.

Coordinates are continuous: the center of the first pixel is 0.5. Maps are affine, (2, 3): ``p @ m[:, :2].T + m[:, 2]``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import PAD_VALUE

__all__ = ["CROP_PADDING", "TOP_DOWN", "to_opencv_affine", "crop_matrix", "cut_crop", "invert_affine", "warp_points"]

TOP_DOWN = "top-down pose"  # the task of models that estimate the pose inside boxes of a detector
CROP_PADDING = 1.25  # enlargement of the box
_MOST_TO_WARP = 32767  # OpenCV warps images with fewer pixels than that in each direction


def crop_matrix(
    box: ArrayLike,
    size: tuple[int, int],
    padding: float = CROP_PADDING,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    degrees: float = 0.0,
) -> NDArray[np.float64]:
    """The affine map from pixels of the image to pixels of the crop.

    Args:
        box: xyxy in pixels of the image, of positive extent.
        size: (height, width) of the crop in pixels.
        padding: factor by which the box is enlarged.
        shift: of the center, in widths and heights of the box.
        scale: further enlarges the box, for augmentation.
        degrees: rotation of the image about the center of the crop, clockwise on the screen.

    Returns:
        float64 (2, 3).
    """
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    height, width = size
    aspect = width / height
    sides = np.array([x2 - x1, y2 - y1])
    window = max(sides[0], sides[1] * aspect) * padding * scale  # its width; the height follows
    center = np.array([x1 + x2, y1 + y2]) / 2 + np.asarray(shift) * sides
    angle = np.deg2rad(degrees)
    linear = width / window * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([linear, (np.array([width, height]) / 2 - linear @ center)[:, None]])


def invert_affine(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of an affine map (2, 3)."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.hstack([inverse, -inverse @ matrix[:, 2:]])


def to_opencv_affine(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert an affine map for OpenCV, where the center of the first pixel is 0, not 0.5."""
    converted = matrix.copy()
    converted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return converted


def warp_points(points: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Apply an affine map to points (..., 2 or more): x and y change, further columns (visibility, score) do not.

    Returns:
        float32, of the same shape.
    """
    warped = points[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([warped, points[..., 2:]], axis=-1).astype(np.float32)


def cut_crop(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], pad_value: float = PAD_VALUE
) -> NDArray[np.uint8]:
    """Warp an image into a crop, with bilinear interpolation.

    Args:
        image: uint8 (H, W, 3).
        matrix: (2, 3), from pixels of the image to pixels of the crop.
        size: (height, width) of the crop.
        pad_value: of pixels outside the image, 0 to 255.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UserError: the crop covers 32767 or more pixels of the image in a direction, more than OpenCV warps.
    """
    if max(image.shape[:2]) >= _MOST_TO_WARP:
        image, matrix = _around_crop(image, matrix, size)
    local = to_opencv_affine(matrix)
    crop = cv2.warpAffine(image, local, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(pad_value,) * 3)
    return np.asarray(crop, np.uint8)


def _around_crop(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image that a crop is made of, and the affine map (2, 3) from its pixels."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    covered = warp_points(corners, invert_affine(matrix))
    limits = np.array(image.shape[1::-1])
    low = np.clip(np.floor(covered.min(0)).astype(int) - 2, 0, limits - 1)  # bilinear: a pixel on each side
    high = np.clip(np.ceil(covered.max(0)).astype(int) + 2, low + 1, limits)
    if (high - low).max() >= _MOST_TO_WARP:
        raise UserError(
            f"got a crop of {' x '.join(map(str, high - low))} pixels of an image, expected fewer than {_MOST_TO_WARP} "
            "in each direction; make the image smaller"
        )
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ low
    return image[low[1] : high[1], low[0] : high[0]], shifted
