"""Instance masks cut to the windows that hold them: to move and to keep them costs what they cover, not the image."""

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
    """N masks; one without a pixel has a crop without a pixel."""

    corners: np.ndarray  # int64 (N, 2): x, y of the first pixel of each crop in the image
    crops: list[np.ndarray]  # uint8 (h, w) each: 0 and 1

    @property
    def counts(self) -> np.ndarray:
        """Pixels of each crop: int64 (N,)."""
        return np.array([crop.size for crop in self.crops], np.int64)

    def take(self, order: np.ndarray) -> MaskWindows:
        """Those of some indices, int (M,)."""
        return MaskWindows(self.corners[order], [self.crops[i] for i in order.tolist()])

    def shift(self, x: int, y: int) -> MaskWindows:
        """All moved by whole pixels."""
        return MaskWindows(self.corners + (x, y), self.crops)


def cut_windows(masks: np.ndarray) -> MaskWindows:
    """The windows of masks, uint8 (N, H, W); the crops are copies."""
    corners, crops = [], []
    for mask in masks:
        x, y, w, h = cv2.boundingRect(mask)
        corners.append((x, y))
        crops.append(mask[y : y + h, x : x + w].copy())
    return MaskWindows(np.array(corners, np.int64).reshape(-1, 2), crops)


def move_windows(windows: MaskWindows, matrix: np.ndarray, size: tuple[int, int]) -> MaskWindows:
    """Masks under an affine map (2, 3), each pixel taking what lies at its centre, cut to a frame (height, width)."""
    sides = np.array([crop.shape[::-1] for crop in windows.crops], np.int64).reshape(-1, 2)
    hulls = warp_boxes(np.hstack([windows.corners, windows.corners + sides]), matrix)
    limit = size[::-1]
    # Half a thousandth: what the arithmetic leaves beside a whole number is no further pixel.
    first = np.floor(hulls[:, :2] + 5e-4).clip(0, limit).astype(np.int64)
    extent = np.ceil(hulls[:, 2:] - 5e-4).clip(0, limit).astype(np.int64) - first
    local = to_opencv_affine(matrix)
    offsets = windows.corners @ matrix[:, :2].T + local[:, 2] - first
    whole = np.array_equal(matrix[:, :2], np.eye(2)) and not (matrix[:, 2] % 1).any()
    crops = []
    for crop, offset, (w, h) in zip(windows.crops, offsets, extent.tolist()):
        if crop.size == 0 or w <= 0 or h <= 0:
            crops.append(crop[:0, :0])
        elif whole:  # a move by whole pixels
            x, y = int(-offset[0]), int(-offset[1])
            crops.append(crop[y : y + h, x : x + w])
        else:
            local[:, 2] = offset
            crops.append(cv2.warpAffine(crop, local, (w, h), flags=cv2.INTER_NEAREST))
    return MaskWindows(first, crops)


def paste_windows(windows: MaskWindows, size: tuple[int, int]) -> np.ndarray:
    """Masks uint8 (N, height, width) of windows that lie in the frame ``size``."""
    masks = np.zeros((len(windows.crops), *size), np.uint8)
    for mask, (x, y), crop in zip(masks, windows.corners.tolist(), windows.crops):
        h, w = crop.shape
        mask[y : y + h, x : x + w] = crop
    return masks


def window_boxes(windows: MaskWindows) -> np.ndarray:
    """The outer sides of the pixels of each mask: float64 (N, 4) xyxy; of no extent where there are none."""
    places = [cv2.boundingRect(crop) if crop.size else (0, 0, 0, 0) for crop in windows.crops]
    rects = np.array(places, np.float64).reshape(-1, 4)
    low = windows.corners + rects[:, :2]
    return np.hstack([low, low + rects[:, 2:]])


def join_windows(parts: Sequence[MaskWindows]) -> MaskWindows:
    """All masks of some sets, in their order."""
    return MaskWindows(
        np.concatenate([part.corners for part in parts]), [crop for part in parts for crop in part.crops]
    )


class WindowMasks(BitmapMasks):
    """mmdet's masks, kept as windows: drawn as images (N, height, width) only for those who ask for them.

    A crowded image of 640 x 640 has some twenty megabytes of masks; drawn in every step of a pipeline, and sent from
    one process to another, they would cost more than all the rest.

    Args:
        windows: the masks, within the frame.
        height: of the frame in pixels.
        width: of the frame in pixels.
    """

    def __init__(self, windows: MaskWindows, height: int, width: int) -> None:
        self.windows = windows
        self.height = height
        self.width = width

    @property
    def masks(self) -> np.ndarray:
        """uint8 (N, height, width), drawn anew each time."""
        return paste_windows(self.windows, (self.height, self.width))

    def __len__(self) -> int:
        return len(self.windows.crops)

    def __getitem__(self, index: Any) -> WindowMasks:
        """Some of them, as numpy would choose them."""
        order = np.atleast_1d(np.arange(len(self))[index])
        return WindowMasks(self.windows.take(order), self.height, self.width)

    @classmethod
    def cat(cls, masks: Sequence[WindowMasks]) -> WindowMasks:
        """All masks of some sets of one frame, in their order."""
        return cls(join_windows([part.windows for part in masks]), masks[0].height, masks[0].width)


def windows_of(masks: BitmapMasks) -> MaskWindows:
    """The windows of masks in either form."""
    return masks.windows if isinstance(masks, WindowMasks) else cut_windows(masks.masks)


def mask_shares(masks: BitmapMasks, stride: int, size: tuple[int, int]) -> np.ndarray:
    """How much of each cell of ``stride`` x ``stride`` pixels is object.

    Args:
        masks: of N objects, in either form.
        stride: side of a cell in pixels.
        size: (height, width) in pixels of the frame that the cells divide, not smaller than the masks' own.

    Returns:
        uint8 (N, height // stride, width // stride): 255 for the whole cell.
    """
    windows = windows_of(masks)
    shares = np.zeros((len(masks), size[0] // stride, size[1] // stride), np.uint8)
    for cells, (x, y), crop in zip(shares, windows.corners.tolist(), windows.crops):
        h, w = crop.shape
        left, top = x // stride, y // stride
        wide, high = -(-(x + w) // stride) - left, -(-(y + h) // stride) - top
        whole = np.zeros((high * stride, wide * stride), np.uint8)
        dx, dy = x - left * stride, y - top * stride
        whole[dy : dy + h, dx : dx + w] = crop * np.uint8(255)
        if crop.size:
            found = cv2.resize(whole, (wide, high), interpolation=cv2.INTER_AREA)
            part = cells[top : top + high, left : left + wide]
            part[:] = found[: part.shape[0], : part.shape[1]]
    return shares
