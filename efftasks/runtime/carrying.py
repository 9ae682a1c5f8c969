"""Predictions of a key frame, moved to where their objects are in a later frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.prediction import Prediction
from efftasks.runtime.motion import Motion, Shape, apply

__all__ = ["Moved", "carry", "move_boxes", "to_small"]

_MOST_STRAY = 0.5  # share of the points in a box above which the object moves by itself
_LEAST_STRAYS = 3
_EDGE = 0.1  # share of a side of a box whose points may not be those of its object
_AGREE = 1.0  # pixels of a small picture, within which half of the strays of an object move alike
_LEAST_VISIBLE = 0.1  # share of a box that is left in the image, below which the object is dropped
_AT_BORDER = 0.005  # distance from the border, over the side of the image, at which an object is cut off by it


class Moved(NamedTuple):
    """Boxes in a later frame.

    Attributes:
        boxes: float64 (K, 4) xyxy in pixels of the image, not clipped.
        camera: float64 (2, 3), the camera's motion in pixels of the image, where 0 is the edge of the first one.
        shifts: float64 (K, 2), what each object has moved beside, in pixels of the image.
    """

    boxes: NDArray[np.float64]
    camera: NDArray[np.float64]
    shifts: NDArray[np.float64]


def to_small(boxes: NDArray, size: Shape, small: Shape) -> NDArray[np.float64]:
    """Boxes in pixels of the image -> pixels of the small picture, where 0 is the center of the first one."""
    scale = np.array(small[::-1]) / np.array(size[::-1])
    moved: NDArray[np.float64] = boxes * np.tile(scale, 2) - 0.5
    return moved


def move_boxes(boxes: NDArray, motion: Motion, size: Shape, small: Shape) -> Moved:
    """Move boxes with the camera, and those whose points agree on another motion with their object.

    Boxes are scaled but not turned: for small angles the box of a turned object is nearly as large.

    Args:
        boxes: (K, 4) xyxy in pixels of the image.
        motion: from its frame to the later one.
        size: (height, width) of the image.
        small: those of the small pictures of ``motion``.
    """
    scale = np.array(size[::-1]) / np.array(small[::-1])
    turn = motion.camera[:, :2] * scale[:, None] / scale
    offset = scale * (motion.camera[:, 2] + 0.5 - motion.camera[:, :2].sum(1) / 2)
    camera = np.column_stack([turn, offset])
    shifts = _own_shifts(to_small(boxes, size, small), motion) * scale
    centers = apply(camera, (boxes[:, :2] + boxes[:, 2:]) / 2) + shifts
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.hypot(turn[0, 0], turn[1, 0])
    return Moved(np.concatenate([centers - halves, centers + halves], 1), camera, shifts)


def carry(key: Prediction, moved: Moved, size: Shape) -> Prediction:
    """The detections of a key frame in a later one: moved, clipped, without those that have left the image.

    An object that was cut off by the border and moves away from it still reaches the border, since more of it is seen.

    Args:
        key: the prediction of the key frame.
        moved: its boxes in the later frame.
        size: (height, width) of the image.
    """
    unclipped = moved.boxes
    limits = np.tile(np.array(size[::-1], np.float64), 2)
    clipped = np.clip(unclipped, 0, limits)
    sides, visible = unclipped[:, 2:] - unclipped[:, :2], clipped[:, 2:] - clipped[:, :2]
    keep = visible.prod(1) > _LEAST_VISIBLE * sides.prod(1)
    tolerance = _AT_BORDER * limits
    low, high = key.boxes[:, :2] <= tolerance[:2], key.boxes[:, 2:] >= (limits - tolerance)[2:]
    clipped[:, :2][low] = 0
    clipped[:, 2:][high] = np.broadcast_to(limits[2:], high.shape)[high]
    boxes = clipped[keep].astype(np.float32)
    parts: dict[str, Any] = {}
    if key.masks is not None:
        parts["masks"] = _move_masks(key.masks[keep], key.boxes[keep], boxes, moved.camera, moved.shifts[keep])
    if key.keypoints is not None:
        parts["keypoints"] = _move_keypoints(key.keypoints[keep], moved.camera, moved.shifts[keep])
    return replace(key, boxes=boxes, scores=key.scores[keep], labels=key.labels[keep], **parts)


def _own_shifts(boxes: NDArray[np.float64], motion: Motion) -> NDArray[np.float64]:
    """What the objects in boxes of small pictures have moved beside the camera: (K, 2)."""
    shifts = np.zeros((len(boxes), 2))
    if not motion.strays.any():
        return shifts
    x, y = motion.sources.T
    margins = _EDGE * (boxes[:, 2:] - boxes[:, :2])  # windows around points there have half of what is behind
    (left, top), (right, bottom) = (boxes[:, :2] + margins).T[..., None], (boxes[:, 2:] - margins).T[..., None]
    inside = (x > left) & (y > top) & (x < right) & (y < bottom)
    astray = inside & motion.strays
    counts = astray.sum(1)
    alone = np.flatnonzero((counts >= _LEAST_STRAYS) & (counts > _MOST_STRAY * inside.sum(1)))
    if alone.size:
        residuals = motion.targets - apply(motion.camera, motion.sources)
        shifts[alone] = _common(residuals, astray[alone])
    return shifts


def _common(residuals: NDArray, members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of what most of the members of each row have moved; zero where they do not agree.

    Args:
        residuals: (P, 2), what points have moved beside the camera.
        members: bool (N, P).
    """
    mean = members @ residuals / members.sum(1, keepdims=True)
    distance = np.abs(residuals - mean[:, None]).max(-1)
    spread = np.sqrt((members * distance**2).sum(1, keepdims=True) / members.sum(1, keepdims=True))
    near = members & (distance <= np.maximum(_AGREE, spread))
    mean = near @ residuals / np.maximum(near.sum(1, keepdims=True), 1)
    agree = near & (np.abs(residuals - mean[:, None]).max(-1) <= _AGREE)
    enough = agree.sum(1) >= np.maximum(_LEAST_STRAYS, members.sum(1) / 2)
    return np.where(enough[:, None], mean, 0)


def _move_keypoints(keypoints: NDArray, camera: NDArray, shifts: NDArray) -> NDArray[np.float32]:
    places = apply(camera, keypoints[..., :2]) + shifts[:, None]
    return np.concatenate([places, keypoints[..., 2:]], -1).astype(np.float32)


def _move_masks(masks: NDArray, old: NDArray, new: NDArray, camera: NDArray, shifts: NDArray) -> NDArray[np.bool_]:
    """Masks (K, H, W) of old boxes, moved and cut to the new ones; only their boxes are computed."""
    moved = np.zeros_like(masks)
    for i, mask in enumerate(masks):
        x0, y0 = np.floor(old[i, :2]).astype(int)
        x1, y1 = np.ceil(old[i, 2:]).astype(int)
        left, top = np.floor(new[i, :2]).astype(int)
        right, bottom = np.ceil(new[i, 2:]).astype(int)
        matrix = camera.copy()
        # From centers of pixels of the old crop to those of the new one.
        matrix[:, 2] += camera[:, :2] @ [x0 + 0.5, y0 + 0.5] + shifts[i] - [left + 0.5, top + 0.5]
        crop = np.ascontiguousarray(mask[y0:y1, x0:x1]).view(np.uint8)
        if crop.size:
            part = cv2.warpAffine(crop * np.uint8(255), matrix, (int(right - left), int(bottom - top)))
            moved[i, top:bottom, left:right] = part > 127
    return moved
