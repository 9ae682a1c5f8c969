"""Outlines and keypoints of the classes of the built-in data set, in the object's coordinate frame.

In that frame an object has a radius of about 1 and its head at +x. As in pictures y points down, so +y is its right.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CLASSES", "FLIP", "KEYPOINTS", "SKELETON", "cover", "keypoints_of", "outlines_of"]

Points = NDArray[np.float64]

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
KEYPOINTS = ("head", "right", "tail", "left")
SKELETON = ((0, 2), (1, 3))  # indices from 0
FLIP = (0, 3, 2, 1)  # what each keypoint becomes in a mirrored picture

# (degrees from the head, distance from the center) of head, right, tail, left: all well inside the outline
_KEYPOINTS: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": ((0, 0.68), (90, 0.68), (180, 0.68), (270, 0.68)),
    "square": ((0, 0.58), (90, 0.58), (180, 0.58), (270, 0.58)),
    "triangle": ((0, 0.55), (120, 0.55), (180, 0.30), (240, 0.55)),
    "star": ((0, 0.60), (72, 0.60), (180, 0.28), (288, 0.60)),
    "ring": ((0, 0.76), (90, 0.76), (180, 0.76), (270, 0.76)),
    "cross": ((0, 0.74), (90, 0.74), (180, 0.74), (270, 0.74)),
}


def _polar(degrees: ArrayLike, radius: ArrayLike) -> Points:
    angle = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.reshape(radius, (-1, 1))


def keypoints_of(name: str) -> Points:
    """The keypoints (4, 2) of a class, in the order of ``KEYPOINTS``."""
    degrees, radius = np.array(_KEYPOINTS[name], dtype=float).T
    return _polar(degrees, radius)


def outlines_of(name: str) -> list[Points]:
    """The closed outlines (n, 2) of a class, to be filled by the even-odd rule (a ring has two)."""
    if name == "circle":
        return [_polar(np.arange(0, 360, 5.0), 1.0)]
    if name == "ring":
        return [_polar(np.arange(0, 360, 5.0), 1.0), _polar(np.arange(0, 360, 5.0), 0.52)]
    if name == "square":
        return [_polar(np.arange(45, 360, 90.0), 1.15)]
    if name == "triangle":
        return [_polar(np.arange(0, 360, 120.0), 1.15)]
    if name == "star":
        return [_polar(np.arange(0, 360, 36.0), np.tile([1.1, 0.48], 5))]
    if name == "cross":
        a, b = 1.05, 0.33
        corners = [(a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b), (-b, -a), (b, -a)]
        return [np.array([*corners, (b, -b)][::-1], dtype=float)]
    raise ValueError(f"name: got {name!r}, expected one of {CLASSES}")


def cover(outlines: list[Points]) -> tuple[int, int, NDArray[np.float32]]:
    """The coverage of each pixel by closed outlines.

    Args:
        outlines: each (n, 2), in pixels of the picture; they may reach beyond it.

    Returns:
        left, top, and the coverage (h, w) in [0, 1] of a block of pixels that begins there and holds all outlines.
    """
    points = np.concatenate(outlines)
    left, top = np.floor(points.min(0)).astype(int) - 1
    right, bottom = np.ceil(points.max(0)).astype(int) + 1
    fine = 4 if max(right - left, bottom - top) <= 256 else 2
    block = np.zeros(((bottom - top) * fine, (right - left) * fine), np.uint8)
    shift = 4  # fillPoly takes fixed-point numbers; the center of its pixel i is at i, here it is at i + 0.5
    fixed = [np.rint(((line - (left, top)) * fine - 0.5) * (1 << shift)).astype(np.int32) for line in outlines]
    cv2.fillPoly(block, fixed, 255, cv2.LINE_8, shift)
    coverage = cv2.resize(block.astype(np.float32), None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)
    return int(left), int(top), (coverage / 255.0).astype(np.float32)
