"""Outlines of masks: filled again they are the mask; simplified ones stay close to it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from efftasks.imaging.polygons import joined_ring, mask_outlines


def blob(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A random mask of several parts with holes, which also touches the border."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    mask: np.ndarray = cv2.GaussianBlur(noise, (0, 0), 2) > -0.02
    return mask


def filled(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centers are inside an odd number of rings, by hand: crossings of a ray to the right."""
    x = np.arange(size[1]) + 0.5
    inside = np.zeros(size, bool)
    for row in range(size[0]):
        y = row + 0.5
        for ring in rings:
            for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0)):
                if (y1 <= y) != (y2 <= y):
                    inside[row] ^= x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return inside


@pytest.mark.parametrize("seed", range(3))
def test_outlines_are_the_mask(seed):
    mask = blob(seed)
    outline = mask_outlines(mask, simplified=False)
    assert len(outline.outer) > 1 and outline.holes and not outline.is_one_ring
    assert (filled([*outline.outer, *outline.holes], mask.shape) == mask).all()
    assert (filled([joined_ring(outline)], mask.shape) == mask).all()


def test_parts_are_joined_where_they_are_closest():
    mask = np.zeros((12, 40), bool)
    mask[1:11, 2:12] = mask[4:8, 20:38] = True
    outline = mask_outlines(mask, simplified=False)
    length = sum(np.abs(np.roll(ring, -1, axis=0) - ring).sum() for ring in outline.outer)  # rings without diagonals
    joined = joined_ring(outline)
    cut = np.hypot(8.5, 3)  # from (11.75, 1.25) or (11.75, 10.75) to (20.25, 4.25) or (20.25, 7.75)
    sides = np.hypot(*(np.roll(joined, -1, axis=0) - joined).T)
    assert sides.sum() == pytest.approx(length + 2 * cut, abs=0.01)


def test_simplified_outlines_are_close_and_short():
    mask = np.zeros((90, 120), np.uint8)
    cv2.ellipse(mask, (60, 45), (50, 30), 20, 0, 360, 1, -1)
    (ring,), fine = mask_outlines(mask > 0).outer, mask_outlines(mask > 0, simplified=False).outer[0]
    again = filled([ring], mask.shape)
    assert (again & (mask > 0)).sum() / (again | (mask > 0)).sum() > 0.97
    assert 8 <= len(ring) < len(fine) / 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_thin_masks_have_a_ring(shape):
    mask = np.zeros((12, 14), bool)
    mask[3 : 3 + shape[0], 5 : 5 + shape[1]] = True
    outline = mask_outlines(mask)
    assert outline.is_one_ring and len(outline.outer[0]) >= 3
    assert (filled(outline.outer, mask.shape) == mask).all()


def test_an_empty_mask_has_none():
    outline = mask_outlines(np.zeros((4, 5), bool))
    assert outline.outer == outline.holes == [] and not outline.is_one_ring
