"""Outlines of masks as polygons, for labeling tools.

Coordinates are continuous: the center of the first pixel is 0.5. A polygon that is not simplified has the centers of
all pixels of its mask inside, and no other.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Outline", "joined_ring", "mask_outlines"]

_MOST_TOLERANCE = 1.0  # pixels by which a simplified ring may leave the edge of the mask,
_TOLERANCE = 0.05  # and of small masks this share of the square root of their area
_PARTS = 2  # of a pixel: at their centers a ring runs a quarter of a pixel inside the edge

Ring = NDArray[np.float64]  # (N, 2), x and y of its corners


class Outline:
    """The rings of a mask, the largest first.

    Attributes:
        outer: around the parts of the mask.
        holes: in them.
    """

    def __init__(self, outer: list[Ring], holes: list[Ring]) -> None:
        self.outer, self.holes = outer, holes

    @property
    def is_one_ring(self) -> bool:
        """Whether one polygon is the mask, without cuts."""
        return len(self.outer) == 1 and not self.holes


def mask_outlines(mask: NDArray[np.bool_], simplified: bool = True) -> Outline:
    """The outline of a mask (H, W); without rings where the mask has no pixel.

    Args:
        mask: bool (H, W).
        simplified: leave out corners, so that it can be edited. It then stays within a pixel of the edge.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    crop = np.ascontiguousarray(mask[top : top + height, left : left + width]).astype(np.uint8)
    if not crop.size:
        return Outline([], [])
    enlarged = crop.repeat(_PARTS, 0).repeat(_PARTS, 1)
    contours, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = min(_MOST_TOLERANCE, _TOLERANCE * float(np.sqrt(crop.sum()))) if simplified else 0.0
    outer: list[Ring] = []
    holes: list[Ring] = []
    for contour, (_, _, _, parent) in sorted(
        zip(contours, hierarchy[0]), key=lambda pair: cv2.contourArea(pair[0]), reverse=True
    ):
        shorter = cv2.approxPolyDP(contour, tolerance * _PARTS, closed=True)
        corners = (shorter if len(shorter) >= 3 else contour)[:, 0]
        ring = (corners + 0.5) / _PARTS + (left, top)
        (outer if parent < 0 else holes).append(ring)
    return Outline(outer, holes)


def joined_ring(outline: Outline) -> Ring:
    """One ring for formats with one polygon an object: parts and holes are reached by cuts without an area."""
    ring, *rest = *outline.outer, *outline.holes
    for other in rest:
        distances = ((ring[:, None] - other) ** 2).sum(-1)
        at, begin = np.unravel_index(distances.argmin(), distances.shape)
        around = np.roll(other, -begin, axis=0)
        ring = np.concatenate([ring[: at + 1], around, around[:1], ring[at:]])
    return ring
