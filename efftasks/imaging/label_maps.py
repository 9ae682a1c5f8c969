"""Label maps of another size: one rule for PyTorch and for a device."""

from __future__ import annotations

import numpy as np

__all__ = ["cell_indices", "labels_on_image"]


def cell_indices(pixels: int, covered: int, extent: int, cells: int) -> np.ndarray:
    """The cell that the centre of each pixel of an image lies in, along one side, int64 (pixels,).

    Args:
        pixels: of the original image.
        covered: pixels of the network input that the image was resized to; what follows is padding.
        extent: pixels of the network input.
        cells: of the label map, which divides the network input evenly: ``extent`` of them, or fewer.

    Counted in integers, so that nothing is rounded and everyone who follows the rule finds the same labels.
    """
    centres = 2 * np.arange(pixels, dtype=np.int64) + 1  # in half pixels
    return (centres * covered * cells) // (2 * pixels * extent)


def labels_on_image(
    labels: np.ndarray, covered: tuple[int, int], extent: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """A label map of the network input (h, w) in pixels of the image (H, W); sizes are (height, width)."""
    rows = cell_indices(size[0], covered[0], extent[0], labels.shape[0])
    columns = cell_indices(size[1], covered[1], extent[1], labels.shape[1])
    return labels[rows[:, None], columns]
