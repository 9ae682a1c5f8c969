"""Everything that is annotated in an image under one affine map: what every transform that moves things calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes

from efftasks.datasets.semantic_values import IGNORE
from efftasks.datasets.transforms.affine import warp_boxes, warp_image
from efftasks.datasets.transforms.mask_windows import (
    MaskWindows,
    WindowMasks,
    join_windows,
    move_windows,
    window_boxes,
    windows_of,
)
from efftasks.imaging.crops import to_opencv_affine, warp_points

__all__ = [
    "Objects",
    "cut_objects",
    "drop_outside",
    "join_objects",
    "move_objects",
    "put_objects",
    "take_objects",
    "warp_objects",
]

# Boxes that are narrower or lower than this many pixels after a map are gone.
_LEAST_SIDE = 1.0


class Objects(NamedTuple):
    """The objects of an image; what the pipeline has not loaded is None."""

    boxes: np.ndarray  # float32 (N, 4) xyxy
    labels: np.ndarray  # int64 (N,)
    ignored: np.ndarray  # bool (N,): crowd regions
    masks: MaskWindows | None = None
    keypoints: np.ndarray | None = None  # float32 (N, P, 3): x, y, visibility
    area_shares: np.ndarray | None = None  # float32 (N,)

    def select(self, kept: np.ndarray) -> Objects:
        """Those whose entry of ``kept``, bool (N,), is True."""
        return Objects(
            self.boxes[kept],
            self.labels[kept],
            self.ignored[kept],
            None if self.masks is None else self.masks.take(np.flatnonzero(kept)),
            None if self.keypoints is None else self.keypoints[kept],
            None if self.area_shares is None else self.area_shares[kept],
        )

    def shift(self, x: int, y: int) -> Objects:
        """All moved by whole pixels."""
        move = np.array([x, y], np.float32)
        keypoints = self.keypoints
        return self._replace(
            boxes=self.boxes + np.tile(move, 2),
            masks=None if self.masks is None else self.masks.shift(x, y),
            keypoints=None if keypoints is None else keypoints + np.append(move, 0).astype(np.float32),
        )


def take_objects(results: dict[str, Any]) -> Objects:
    """The objects of a pipeline's dict."""
    masks = results.get("gt_masks")
    return Objects(
        results["gt_bboxes"].numpy(),
        results["gt_bboxes_labels"],
        results["gt_ignore_flags"],
        None if masks is None else windows_of(masks),
        results.get("gt_keypoints"),
        results.get("gt_area_shares"),
    )


def put_objects(results: dict[str, Any], objects: Objects, size: tuple[int, int]) -> None:
    """Write objects, whose frame is (height, width), to a pipeline's dict."""
    results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(np.ascontiguousarray(objects.boxes, np.float32)))
    results["gt_bboxes_labels"] = objects.labels
    results["gt_ignore_flags"] = objects.ignored
    if objects.masks is not None:
        results["gt_masks"] = WindowMasks(objects.masks, *size)
    if objects.keypoints is not None:
        results["gt_keypoints"] = objects.keypoints
    if objects.area_shares is not None:
        results["gt_area_shares"] = objects.area_shares


def join_objects(parts: Sequence[Objects]) -> Objects:
    """All objects of some sets that have the same things loaded, in their order."""
    masks = [part.masks for part in parts if part.masks is not None]
    keypoints = [part.keypoints for part in parts if part.keypoints is not None]
    shares = [part.area_shares for part in parts if part.area_shares is not None]
    return Objects(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
        join_windows(masks) if masks else None,
        np.concatenate(keypoints) if keypoints else None,
        np.concatenate(shares) if shares else None,
    )


def move_objects(objects: Objects, matrix: np.ndarray, size: tuple[int, int]) -> Objects:
    """Objects under an affine map (2, 3). Masks are cut to the frame (height, width); boxes and keypoints are not."""
    return objects._replace(
        boxes=warp_boxes(objects.boxes, matrix).astype(np.float32),
        masks=None if objects.masks is None else move_windows(objects.masks, matrix, size),
        keypoints=None if objects.keypoints is None else warp_points(objects.keypoints, matrix),
    )


def drop_outside(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Keypoints (..., 3) with visibility 0 for those outside of [0, width) x [0, height); x and y stay."""
    height, width = size
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.concatenate([keypoints[..., :2], (keypoints[..., 2] * inside)[..., None]], axis=-1)


def cut_objects(objects: Objects, matrix: np.ndarray, size: tuple[int, int], min_visible: float) -> Objects:
    """Objects under an affine map, cut to a frame, without those of which too little is left.

    An object that the frame cuts or that is turned gets the box around what is left of its mask, if it has one. A
    crowd region stays as long as there is anything of it: what goes is learned as background.

    Args:
        objects: of an image.
        matrix: (2, 3).
        size: (height, width) of the frame.
        min_visible: the part of its box, by area, that must lie in the frame.
    """
    moved = move_objects(objects, matrix, size)
    boxes = moved.boxes.clip(0, np.array([size[1], size[0]] * 2, np.float32))
    cut = (boxes != moved.boxes).any(1)
    seen = _areas(boxes) >= min_visible * _areas(moved.boxes)
    if objects.masks is not None and moved.masks is not None:
        turned = matrix[0, 1] != 0 or matrix[1, 0] != 0
        tight = window_boxes(moved.masks).astype(np.float32)
        left = _areas(tight) > 0
        boxes = np.where(((cut | turned) & left)[:, None], tight, boxes)
        seen &= left | ~cut | (objects.masks.counts == 0)
    keypoints = None if moved.keypoints is None else drop_outside(moved.keypoints, size)
    kept = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1) & (seen | objects.ignored)
    return moved._replace(boxes=boxes, keypoints=keypoints).select(kept)


def warp_objects(
    results: dict[str, Any], matrix: np.ndarray, size: tuple[int, int], fill: int, min_visible: float = 0.1
) -> dict[str, Any]:
    """Image, objects and label map under one affine map, in a frame of another size.

    Args:
        results: a pipeline's dict; it is changed.
        matrix: (2, 3), from the image to the frame, in continuous coordinates.
        size: (height, width) of the frame in pixels.
        fill: pixel value of what lies outside of the image, 0..255; 255 in the label map, whatever this is.
        min_visible: objects of whose box a smaller part, by area, lies in the frame are dropped.
    """
    results["img"] = warp_image(results["img"], matrix, size, fill)
    results["img_shape"] = size
    if "gt_seg_map" in results:
        results["gt_seg_map"] = cv2.warpAffine(
            results["gt_seg_map"], to_opencv_affine(matrix), size[::-1], flags=cv2.INTER_NEAREST, borderValue=IGNORE
        )
    put_objects(results, cut_objects(take_objects(results), matrix, size, min_visible), size)
    return results


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
