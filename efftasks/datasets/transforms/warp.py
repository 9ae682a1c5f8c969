"""All annotations of an image under one affine map; the geometric transforms call these functions."""

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

_MIN_SIDE = 1.0  # objects with a smaller box are dropped, in pixels


class Objects(NamedTuple):
    """The objects of an image; annotations that the pipeline has not loaded are None."""

    boxes: np.ndarray  # float32 (N, 4) xyxy
    labels: np.ndarray  # int64 (N,)
    ignored: np.ndarray  # bool (N,): crowd regions
    masks: MaskWindows | None = None
    keypoints: np.ndarray | None = None  # float32 (N, P, 3): x, y, visibility
    area_shares: np.ndarray | None = None  # float32 (N,)

    def select(self, keep: np.ndarray) -> Objects:
        """The objects whose entry of ``keep``, bool (N,), is True."""
        return Objects(
            self.boxes[keep],
            self.labels[keep],
            self.ignored[keep],
            None if self.masks is None else self.masks.take(np.flatnonzero(keep)),
            None if self.keypoints is None else self.keypoints[keep],
            None if self.area_shares is None else self.area_shares[keep],
        )

    def shift(self, x: int, y: int) -> Objects:
        """All objects translated by whole pixels."""
        offset = np.array([x, y], np.float32)
        keypoints = self.keypoints
        return self._replace(
            boxes=self.boxes + np.tile(offset, 2),
            masks=None if self.masks is None else self.masks.shift(x, y),
            keypoints=None if keypoints is None else keypoints + np.append(offset, 0).astype(np.float32),
        )


def take_objects(results: dict[str, Any]) -> Objects:
    """Read the objects of a pipeline's dict."""
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
    """Write objects in a frame (height, width) to a pipeline's dict."""
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
    """Several sets of objects concatenated; all must have the same annotations loaded."""
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
    """Objects under an affine map (2, 3). Masks are clipped to the frame (height, width), boxes and keypoints not."""
    return objects._replace(
        boxes=warp_boxes(objects.boxes, matrix).astype(np.float32),
        masks=None if objects.masks is None else move_windows(objects.masks, matrix, size),
        keypoints=None if objects.keypoints is None else warp_points(objects.keypoints, matrix),
    )


def drop_outside(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Keypoints (..., 3) with visibility 0 outside of [0, width) x [0, height); x and y are not changed."""
    height, width = size
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.concatenate([keypoints[..., :2], (keypoints[..., 2] * inside)[..., None]], axis=-1)


def cut_objects(objects: Objects, matrix: np.ndarray, size: tuple[int, int], min_visible: float) -> Objects:
    """Objects under an affine map, clipped to a frame, without those that are hardly visible.

    An object with a mask that is clipped or rotated gets the tight box around its visible mask. Crowd regions are kept
    if any part is visible, since objects in a dropped region would be learned as background.

    Args:
        objects: of an image.
        matrix: the affine map (2, 3) from the image to the frame.
        size: (height, width) of the frame in pixels.
        min_visible: minimum part of the area of an object's box that is inside the frame.
    """
    warped = move_objects(objects, matrix, size)
    boxes = warped.boxes.clip(0, np.array([size[1], size[0]] * 2, np.float32))
    clipped = (boxes != warped.boxes).any(1)
    visible = _areas(boxes) >= min_visible * _areas(warped.boxes)
    if objects.masks is not None and warped.masks is not None:
        is_rotated = matrix[0, 1] != 0 or matrix[1, 0] != 0
        tight_boxes = window_boxes(warped.masks).astype(np.float32)
        has_mask = _areas(tight_boxes) > 0
        boxes = np.where(((clipped | is_rotated) & has_mask)[:, None], tight_boxes, boxes)
        visible &= has_mask | ~clipped | (objects.masks.counts == 0)
    keypoints = None if warped.keypoints is None else drop_outside(warped.keypoints, size)
    keep = (boxes[:, 2:] - boxes[:, :2] >= _MIN_SIDE).all(1) & (visible | objects.ignored)
    return warped._replace(boxes=boxes, keypoints=keypoints).select(keep)


def warp_objects(
    results: dict[str, Any], matrix: np.ndarray, size: tuple[int, int], fill: int, min_visible: float = 0.1
) -> dict[str, Any]:
    """Apply an affine map to image, objects and label map.

    Args:
        results: a pipeline's dict, changed in place.
        matrix: (2, 3), from the image to the frame, in continuous coordinates.
        size: (height, width) of the frame in pixels.
        fill: pixel value outside of the image, 0..255; in label maps it is 255.
        min_visible: objects with a smaller part of the area of their box inside the frame are dropped.

    Returns:
        ``results``.
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
