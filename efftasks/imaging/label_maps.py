"""Resizing label maps: one rule for PyTorch and for the runtimes."""

from __future__ import annotations

import numpy as np

__all__ = ["cell_indices", "labels_on_image"]


def cell_indices(pixels: int, covered: int, extent: int, cells: int) -> np.ndarray:
    """The index of the cell that contains the center of each pixel of an image, along one side: int64 (pixels,).

    Args:
        pixels: length of the side of the original image.
        covered: length in the network input that the image was resized to; what follows is padding.
        extent: length of the side of the network input.
        cells: length of the side of the label map, which covers the network input evenly; at most ``extent``.

    The arithmetic is in integers, so that every implementation gets the same labels.
    """
    centers = 2 * np.arange(pixels, dtype=np.int64) + 1  # in half pixels
    return (centers * covered * cells) // (2 * pixels * extent)


def labels_on_image(
    labels: np.ndarray, covered: tuple[int, int], extent: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Resize a label map (h, w) of the network input to the image (H, W); sizes are (height, width)."""
    rows = cell_indices(size[0], covered[0], extent[0], labels.shape[0])
    columns = cell_indices(size[1], covered[1], extent[1], labels.shape[1])
    return labels[rows[:, None], columns]
