from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F

from efftasks.imaging.masks import MASK_STRIDE, box_windows, masks_on_image
from efftasks.structures.instances import MASK_STRIDE as STRIDE_IN_TRAINING

TIE = 1e-5  # logits this near to the threshold may fall on either side


def logits(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, height, width)).astype(np.float32)


def everywhere(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.tile(np.array([0, 0, size[1], size[0]], np.float32), (count, 1))


def check(found: np.ndarray, expected: np.ndarray, threshold: float = 0.0) -> None:
    """Bool masks against interpolated logits."""
    assert found.dtype == bool and found.shape == expected.shape
    clear = np.abs(expected - threshold) > TIE
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], (expected > threshold)[clear])


@pytest.mark.parametrize(
    ("size", "extent"),
    [
        ((480, 640), (480, 640)),  # as large as the network input
        ((301, 203), (160, 256)),  # taller: padding on the right
        ((37, 91), (160, 256)),  # enlarged, padding below
        ((700, 1100), (96, 160)),  # several bands of pixels
        ((1, 1), (32, 32)),
        ((5, 400), (4, 4)),  # a single cell
    ],
)
@pytest.mark.parametrize("threshold", [0.0, -0.3])
def test_equals_grid_sample_and_scipy(size, extent, threshold):
    scale = min(extent[0] / size[0], extent[1] / size[1])
    scale_x, scale_y = scale, scale * 0.97  # sides are rounded each for itself
    masks = logits(2, extent[0] // 4, extent[1] // 4)
    found = masks_on_image(masks, everywhere(2, size), (scale_x, scale_y), size, threshold)

    x = (torch.arange(size[1], dtype=torch.float64) + 0.5) * scale_x / extent[1] * 2 - 1
    y = (torch.arange(size[0], dtype=torch.float64) + 0.5) * scale_y / extent[0] * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].expand(2, -1, -1, -1)
    sampled = F.grid_sample(torch.from_numpy(masks)[:, None].double(), grid, padding_mode="border", align_corners=False)
    check(found, sampled[:, 0].numpy(), threshold)

    rows, columns = ((np.arange(n) + 0.5) * s / 4 - 0.5 for n, s in zip(size, (scale_y, scale_x)))
    places = np.meshgrid(rows, columns, indexing="ij")
    for mask, ours in zip(masks.astype(np.float64), found):
        check(ours, scipy.ndimage.map_coordinates(mask, places, order=1, mode="nearest"), threshold)


def test_at_the_size_of_the_input_it_is_interpolation_by_four():
    masks = logits(3, 24, 40)
    found = masks_on_image(masks, everywhere(3, (96, 160)), (1.0, 1.0), (96, 160))
    check(found, F.interpolate(torch.from_numpy(masks)[None], scale_factor=4, mode="bilinear")[0].numpy())


def test_by_hand():
    masks = np.array([[[-0.5, 0.5]]], np.float32)  # centers of the cells are at 2 and 6, halfway is 4
    box = np.array([[0, 0, 8, 4]], np.float32)
    assert masks_on_image(masks, box, (1, 1), (4, 8)).tolist() == [[[False] * 4 + [True] * 4] * 4]
    # the centers of pixels 2 and 3 are at 0.125 and 0.375 on the way
    assert masks_on_image(masks, box, (1, 1), (4, 8), threshold=-0.2)[0, 0].tolist() == [False] * 3 + [True] * 5
    assert not masks_on_image(masks, box, (1, 1), (4, 8), threshold=0.5).any()  # above, not at
    # an image twice as large as the input: halfway is at 8
    assert masks_on_image(masks, box * 2, (0.5, 0.5), (8, 16))[0, 3].tolist() == [False] * 8 + [True] * 8


def test_nothing_outside_the_pixels_that_the_box_touches():
    random = np.random.default_rng(1)
    size = (50, 70)
    corners = random.uniform(-10, 80, (40, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes[:3] = [[10, 20, 10, 30], [90, 0, 95, 50], [3.2, 4, 5.0, 6.7]]  # without width, off the image, by hand
    masks = logits(40, 16, 20)
    found = masks_on_image(masks, boxes, (1.1, 1.2), size)
    free = masks_on_image(masks, everywhere(40, size), (1.1, 1.2), size)
    for ours, whole, (left, top, right, bottom) in zip(found, free, boxes):
        inside = np.zeros(size, bool)
        for row, column in np.ndindex(size):
            inside[row, column] = left < column + 1 and right > column and top < row + 1 and bottom > row
        if left == right:
            inside[:] = False
        np.testing.assert_array_equal(ours, whole & inside)
    assert box_windows(boxes[2:3], size).tolist() == [[3, 4, 5, 7]] and not found[:2].any()


def test_no_objects_and_the_stride_of_training():
    found = masks_on_image(np.zeros((0, 8, 8), np.float32), np.zeros((0, 4), np.float32), (1, 1), (20, 30))
    assert found.shape == (0, 20, 30) and found.dtype == bool
    assert MASK_STRIDE == STRIDE_IN_TRAINING


def test_the_masks_given_stay_as_they_are():
    masks = logits(2, 8, 8)
    before = masks.copy()
    masks_on_image(masks, everywhere(2, (32, 32)), (1, 1), (32, 32))
    np.testing.assert_array_equal(masks, before)
