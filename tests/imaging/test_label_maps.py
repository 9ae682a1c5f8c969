"""Where the pixels of an image lie in a label map."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from efftasks.imaging.label_maps import cell_indices, labels_on_image


@pytest.mark.parametrize(
    ("pixels", "covered", "extent", "cells"),
    [(480, 480, 480, 480), (360, 360, 384, 384), (1000, 333, 640, 80), (7, 500, 512, 64), (1, 1, 32, 4), (5, 3, 4, 4)],
)
def test_each_pixel_takes_the_cell_of_its_center(pixels: int, covered: int, extent: int, cells: int) -> None:
    found = cell_indices(pixels, covered, extent, cells)
    exact = [Fraction(2 * i + 1, 2) * covered / pixels * cells / extent for i in range(pixels)]
    assert found.tolist() == [int(x) for x in exact]
    assert found.min() >= 0 and found.max() < cells


def test_without_padding_it_is_nearest_interpolation() -> None:
    labels = np.random.default_rng(0).integers(0, 9, (13, 17)).astype(np.uint8)
    found = labels_on_image(labels, (104, 136), (104, 136), (50, 61))
    expected = torch.nn.functional.interpolate(torch.from_numpy(labels)[None, None], (50, 61), mode="nearest-exact")
    assert np.array_equal(found, expected[0, 0])
