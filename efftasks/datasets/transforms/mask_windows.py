"""Instance masks cropped to their bounding boxes ("windows"), so that cost grows with the objects, not the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.affine import warp_boxes
from efftasks.imaging.crops import to_opencv_affine

__all__ = [
    "mask_shares",
    "MaskWindows",
    "WindowMasks",
    "cut_windows",
    "join_windows",
    "move_windows",
    "paste_windows",
    "window_boxes",
    "windows_of",
]


class MaskWindows(NamedTuple):
    """N masks as crops; an empty mask has a crop without pixels."""

    corners: np.ndarray  # int64 (N, 2): x, y of the top left pixel of each crop in the image
    crops: list[np.ndarray]  # uint8 (h, w) each: 0 and 1

    @property
    def counts(self) -> np.ndarray:
        """Number of pixels of each crop: int64 (N,)."""
        return np.array([crop.size for crop in self.crops], np.int64)

    def take(self, indices: np.ndarray) -> MaskWindows:
        """The masks at indices, int (M,)."""
        return MaskWindows(self.corners[indices], [self.crops[i] for i in indices.tolist()])

    def shift(self, x: int, y: int) -> MaskWindows:
        """All masks translated by whole pixels."""
        return MaskWindows(self.corners + (x, y), self.crops)


def cut_windows(masks: np.ndarray) -> MaskWindows:
    """Masks, uint8 (N, H, W), as windows; the crops are copies."""
    corners, crops = [], []
    for mask in masks:
        x, y, w, h = cv2.boundingRect(mask)
        corners.append((x, y))
        crops.append(mask[y : y + h, x : x + w].copy())
    return MaskWindows(np.array(corners, np.int64).reshape(-1, 2), crops)


def move_windows(windows: MaskWindows, matrix: np.ndarray, size: tuple[int, int]) -> MaskWindows:
    """Masks under an affine map (2, 3), sampled at pixel centers and clipped to a frame (height, width)."""
    sides = np.array([crop.shape[::-1] for crop in windows.crops], np.int64).reshape(-1, 2)
    boxes = warp_boxes(np.hstack([windows.corners, windows.corners + sides]), matrix)
    limit = size[::-1]
    # The tolerance keeps rounding errors from adding a row or column of pixels.
    first = np.floor(boxes[:, :2] + 5e-4).clip(0, limit).astype(np.int64)
    extent = np.ceil(boxes[:, 2:] - 5e-4).clip(0, limit).astype(np.int64) - first
    local = to_opencv_affine(matrix)
    offsets = windows.corners @ matrix[:, :2].T + local[:, 2] - first
    is_pixel_shift = np.array_equal(matrix[:, :2], np.eye(2)) and not (matrix[:, 2] % 1).any()
    crops = []
    for crop, offset, (w, h) in zip(windows.crops, offsets, extent.tolist()):
        if crop.size == 0 or w <= 0 or h <= 0:
            crops.append(crop[:0, :0])
        elif is_pixel_shift:  # copied without interpolation
            x, y = int(-offset[0]), int(-offset[1])
            crops.append(crop[y : y + h, x : x + w])
        else:
            local[:, 2] = offset
            crops.append(cv2.warpAffine(crop, local, (w, h), flags=cv2.INTER_NEAREST))
    return MaskWindows(first, crops)


def paste_windows(windows: MaskWindows, size: tuple[int, int]) -> np.ndarray:
    """Windows inside a frame ``size`` as masks, uint8 (N, height, width)."""
    masks = np.zeros((len(windows.crops), *size), np.uint8)
    for mask, (x, y), crop in zip(masks, windows.corners.tolist(), windows.crops):
        h, w = crop.shape
        mask[y : y + h, x : x + w] = crop
    return masks


def window_boxes(windows: MaskWindows) -> np.ndarray:
    """The tight box around each mask: float64 (N, 4) xyxy; of area 0 for an empty mask."""
    bounds = [cv2.boundingRect(crop) if crop.size else (0, 0, 0, 0) for crop in windows.crops]
    rects = np.array(bounds, np.float64).reshape(-1, 4)
    low = windows.corners + rects[:, :2]
    return np.hstack([low, low + rects[:, 2:]])


def join_windows(parts: Sequence[MaskWindows]) -> MaskWindows:
    """Several sets of masks concatenated."""
    return MaskWindows(
        np.concatenate([part.corners for part in parts]), [crop for part in parts for crop in part.crops]
    )


class WindowMasks(BitmapMasks):
    """mmdet's BitmapMasks stored as windows; full masks (N, height, width) are made only when they are read.

    A crowded image of 640 x 640 has some 20 MB of full masks. To make them in every step of a pipeline and to send them
    between processes would cost more than the rest of the pipeline.

    Args:
        windows: the masks, inside the frame.
        height: of the frame in pixels.
        width: of the frame in pixels.
    """

    def __init__(self, windows: MaskWindows, height: int, width: int) -> None:
        self.windows = windows
        self.height = height
        self.width = width

    @property
    def masks(self) -> np.ndarray:
        """Full masks, uint8 (N, height, width), made at each access."""
        return paste_windows(self.windows, (self.height, self.width))

    def __len__(self) -> int:
        return len(self.windows.crops)

    def __getitem__(self, index: Any) -> WindowMasks:
        """The masks at ``index``, which is any index of numpy."""
        indices = np.atleast_1d(np.arange(len(self))[index])
        return WindowMasks(self.windows.take(indices), self.height, self.width)

    @classmethod
    def cat(cls, masks: Sequence[WindowMasks]) -> WindowMasks:
        """Several sets of masks of one frame, concatenated."""
        return cls(join_windows([part.windows for part in masks]), masks[0].height, masks[0].width)


def windows_of(masks: BitmapMasks) -> MaskWindows:
    """Masks of mmdet as windows."""
    return masks.windows if isinstance(masks, WindowMasks) else cut_windows(masks.masks)


def mask_shares(masks: BitmapMasks, stride: int, size: tuple[int, int]) -> np.ndarray:
    """The share of each cell of ``stride`` x ``stride`` pixels that the object covers.

    Args:
        masks: of N objects.
        stride: side of a cell in pixels.
        size: (height, width) of the frame in pixels, not smaller than that of the masks.

    Returns:
        uint8 (N, height // stride, width // stride): 255 for a fully covered cell.
    """
    windows = windows_of(masks)
    shares = np.zeros((len(masks), size[0] // stride, size[1] // stride), np.uint8)
    for cells, (x, y), crop in zip(shares, windows.corners.tolist(), windows.crops):
        h, w = crop.shape
        left, top = x // stride, y // stride
        columns, rows = -(-(x + w) // stride) - left, -(-(y + h) // stride) - top
        padded = np.zeros((rows * stride, columns * stride), np.uint8)  # the crop, extended to full cells
        dx, dy = x - left * stride, y - top * stride
        padded[dy : dy + h, dx : dx + w] = crop * np.uint8(255)
        if crop.size:
            covered = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
            part = cells[top : top + rows, left : left + columns]
            part[:] = covered[: part.shape[0], : part.shape[1]]
    return shares
