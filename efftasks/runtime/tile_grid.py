"""Where the tiles of a large image lie: windows, and in each a core. The cores are a partition of the image."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Span", "Tile", "cut_window", "make_grid", "make_spans"]


class Span(NamedTuple):
    """A tile along one side of the image, in pixels of the image; ends are exclusive."""

    start: int  # of the window
    stop: int  # may lie outside of the image
    core_start: int
    core_stop: int


class Tile(NamedTuple):
    """A window of the image, and the core whose objects are the tile's."""

    x: Span
    y: Span

    def owns(self, centers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points (K, 2) lie in the core: bool (K,). Of all tiles of a grid exactly one says so."""
        low, high = (self.x.core_start, self.y.core_start), (self.x.core_stop, self.y.core_stop)
        return np.asarray(((centers >= low) & (centers < high)).all(1))

    def meets(self, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether boxes (K, 4) xyxy touch the core: bool (K,)."""
        low, high = (self.x.core_start, self.y.core_start), (self.x.core_stop, self.y.core_stop)
        return np.asarray(((boxes[:, :2] < high) & (boxes[:, 2:] >= low)).all(1))

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns of the core in the image."""
        return slice(self.y.core_start, self.y.core_stop), slice(self.x.core_start, self.x.core_stop)

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """Rows and columns of the core in the window."""
        return (
            slice(self.y.core_start - self.y.start, self.y.core_stop - self.y.start),
            slice(self.x.core_start - self.x.start, self.x.core_stop - self.x.start),
        )


class Grid(NamedTuple):
    """The tiles of an image at one scale."""

    tiles: list[Tile]  # row by row
    factor: float  # how many times the image is smaller than at the finest scale


def make_spans(length: int, scale: float, side: int, margin: int, stride: int) -> list[Span]:
    """The tiles along one side of an image.

    Windows begin at multiples of the network's largest stride, so that two of them have the same cells where they
    overlap. The first and the last have no margin at the image's border. The last begins as early as its end allows.

    Args:
        length: of the side of the image, pixels.
        scale: pixels of the network input for each pixel of the image.
        side: of the network input, a multiple of ``stride``.
        margin: at least between a core and the end of its window inside of the image, in pixels of the network input;
            twice of it is a multiple of ``stride``, and less than ``side``.
        stride: of the network.
    """
    scaled = math.ceil(length * scale - 1e-9)
    extent = math.ceil(side / scale - 1e-9)
    if length <= extent:
        return [Span(0, extent, 0, length)]
    step = side - 2 * margin
    count = math.ceil((scaled - 2 * margin) / step)
    last = math.ceil((scaled - side) / stride) * stride
    starts = [round(min(i * step, last) / scale) for i in range(count)]
    borders = [0, *(round((i * step + margin) / scale) for i in range(1, count)), length]
    return [Span(start, start + extent, *borders[i : i + 2]) for i, start in enumerate(starts)]


def make_grid(
    image_size: tuple[int, int],
    scale: tuple[float, float],
    size: tuple[int, int],
    margin: int,
    stride: int,
    factor: float = 1.0,
) -> Grid:
    """The tiles of an image; see :func:`make_spans`.

    Args:
        image_size: (height, width) of the image.
        scale: (x, y) at the finest scale.
        size: (height, width) of the network input.
        margin: in pixels of the network input.
        stride: of the network.
        factor: how many times smaller than at the finest scale.
    """
    columns = make_spans(image_size[1], scale[0] / factor, size[1], margin, stride)
    rows = make_spans(image_size[0], scale[1] / factor, size[0], margin, stride)
    return Grid([Tile(column, row) for row, column in product(rows, columns)], factor)


def cut_window(
    image: NDArray[np.uint8], tile: Tile, pad_value: float, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """The pixels of a tile: a view of the image where it needs no padding and no resizing.

    Args:
        image: uint8 (H, W, 3).
        tile: which; its window begins inside of the image.
        pad_value: of pixels outside of the image.
        size: (height, width) to make it smaller to, by averaging; None leaves it as it is.

    Returns:
        uint8 of the size of the window, or of ``size``.
    """
    height, width = tile.y.stop - tile.y.start, tile.x.stop - tile.x.start
    inside = image[tile.y.start : tile.y.stop, tile.x.start : tile.x.stop]
    shape = (height, width)
    if size is not None and size != shape:
        # Made smaller before it is padded: a window may be many times as large as the image.
        smaller = [max(1, round(n * to / n_all)) for n, to, n_all in zip(inside.shape, size, shape)]
        inside = np.asarray(cv2.resize(inside, smaller[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        shape = size
    if inside.shape[:2] == shape:
        return inside
    padded = np.full((*shape, 3), round(pad_value), np.uint8)
    padded[: inside.shape[0], : inside.shape[1]] = inside
    return padded
