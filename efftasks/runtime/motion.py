"""Motion between a key frame and a later frame, estimated on small gray pictures with OpenCV."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["KeyPicture", "Motion", "Shape", "apply", "small_picture"]

Shape = tuple[int, ...]  # (height, width), as arrays have it

_SIDE = 160  # the longer side of small pictures, at most
_CELL = 8  # the best point of each square of this side is tracked
_MOST_POINTS = 120
_LEAST_POINTS = 8  # with fewer there is nothing to track: a wall, the dark
_LEAST_CORNER = 1e-4  # smaller eigenvalue of the gradients around a point, below which it is noise
_AROUND = 15  # side of the neighborhood whose mean is taken from a pixel
_WINDOW, _LEVELS = 9, 3  # of Lucas-Kanade: displacements of up to about 30 pixels of a small picture
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
_NEAR = 0.5  # pixels of a small picture from the camera's motion, up to which a point belongs to it
_LEAST_SHARE = 0.4  # of the points, that must follow the camera
_LEAST_TRACKED = 0.6  # of the points that should be in the picture
_SCALES = (0.75, 1.33)
_STILL = 0.1  # pixels of a small picture: corners that move by less do not move
_IDENTITY = np.eye(2, 3)


class Motion(NamedTuple):
    """Where what was in the key frame is now, in coordinates of small pictures: the center of the first pixel is 0.

    Attributes:
        camera: float64 (2, 3), rotation with uniform scale, and translation, of what does not move by itself.
        sources: float32 (P, 2), points of the key frame.
        targets: float32 (P, 2), where they are now.
        strays: bool (P,), those that do not follow the camera.
    """

    camera: NDArray[np.float64]
    sources: NDArray[np.float32]
    targets: NDArray[np.float32]
    strays: NDArray[np.bool_]


def small_picture(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) BGR -> gray (h, w), of at most 160 pixels a side.

    Large images are thinned out to twice the size first: to average all of their pixels would take the most time.
    """
    if max(pixels.shape[:2]) > 2 * _SIDE:
        pixels = np.asarray(cv2.resize(pixels, _within(pixels.shape, 2 * _SIDE)), np.uint8)
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(gray, _within(pixels.shape, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _within(shape: Shape, side: int) -> tuple[int, int]:
    """(width, height) of an image that is scaled to at most ``side`` pixels a side."""
    scale = min(1.0, side / max(shape[:2]))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def apply(camera: NDArray[np.float64], points: NDArray) -> NDArray:
    """Move points (..., 2)."""
    moved: NDArray = points @ camera[:, :2].T + camera[:, 2]
    return moved


class KeyPicture:
    """The small picture of a key frame, and its points, which are followed from frame to frame.

    Points are compared with the key frame itself each time, so that errors do not add up; the frames before only say
    where to search: where the camera would have brought the points at the same pace.

    Args:
        gray: uint8 (h, w).
    """

    def __init__(self, gray: NDArray[np.uint8]) -> None:
        self.gray = gray
        self._points = _corners(gray)
        self._camera, self._next = _IDENTITY, _IDENTITY
        self._detail = _detail(gray)

    def follow(self, gray: NDArray[np.uint8]) -> Motion | None:
        """The motion from the key frame to a frame; None where it cannot be told.

        Args:
            gray: uint8, of the same shape as the key frame.
        """
        if len(self._points) < _LEAST_POINTS:
            return Motion(_IDENTITY, self._points, self._points, np.zeros(len(self._points), bool))
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            self._detail,
            _detail(gray),
            self._points,
            apply(self._next, self._points).astype(np.float32),
            winSize=(_WINDOW, _WINDOW),
            maxLevel=_LEVELS,
            criteria=_STOP,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        tracked = status.ravel().astype(bool) & _inside(found, gray.shape)
        sources, targets = self._points[tracked], found[tracked]
        if len(sources) < _LEAST_POINTS:
            return None
        camera, follows = cv2.estimateAffinePartial2D(
            sources, targets, ransacReprojThreshold=_NEAR, maxIters=200, refineIters=5
        )
        if camera is None:
            return None
        strays = follows.ravel() == 0
        if not self._is_likely(camera, tracked, strays):
            return None
        self._camera, self._next = camera, 2 * camera - self._camera
        return Motion(_rest(camera, gray.shape), sources, targets, strays)

    def _is_likely(self, camera: NDArray, tracked: NDArray[np.bool_], strays: NDArray[np.bool_]) -> bool:
        if not _SCALES[0] < np.hypot(camera[0, 0], camera[1, 0]) < _SCALES[1]:
            return False
        expected = _inside(apply(camera, self._points), self.gray.shape).sum()
        enough = bool(tracked.sum() >= max(_LEAST_POINTS, _LEAST_TRACKED * expected))
        return enough and bool(strays.mean() <= 1 - _LEAST_SHARE)


def _detail(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture without its brightness, which changes with the exposure, not with the motion."""
    around = cv2.blur(gray, (_AROUND, _AROUND))
    return np.asarray(cv2.addWeighted(gray, 1, around, -1, 128), np.uint8)


def _corners(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The point of each cell that is best to track: float32 (P, 2), the best first."""
    rows, columns = gray.shape[0] // _CELL, gray.shape[1] // _CELL
    if not rows or not columns:
        return np.zeros((0, 2), np.float32)
    strength = cv2.cornerMinEigenVal(gray, 5)[: rows * _CELL, : columns * _CELL]
    cells = strength.reshape(rows, _CELL, columns, _CELL).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    place, best = cells.argmax(1), cells.max(1)
    corner = np.indices((rows, columns)).reshape(2, -1) * _CELL
    y, x = corner + np.stack([place // _CELL, place % _CELL])
    order = np.argsort(-best, kind="stable")[:_MOST_POINTS]
    order = order[best[order] >= _LEAST_CORNER]
    return np.stack([x, y], 1)[order].astype(np.float32)


def _inside(points: NDArray, shape: Shape) -> NDArray[np.bool_]:
    """Which points have all of the window around them in the picture."""
    margin = _WINDOW // 2
    return np.asarray(((points >= margin) & (points <= np.array(shape[::-1]) - 1 - margin)).all(1))


def _rest(camera: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    """The identity instead of what is noise of the estimate, so that boxes of a still picture do not tremble."""
    height, width = shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    return _IDENTITY if np.abs(apply(camera, corners) - corners).max() < _STILL else camera
