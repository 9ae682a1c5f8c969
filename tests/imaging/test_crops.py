import numpy as np
import pytest

from efftasks.imaging.crops import crop_matrix, cut_crop, invert_affine, warp_points
from efftasks.structures.errors import UserError

SIZE = (256, 192)


def test_the_rule_by_hand():
    # A box of 40 x 20 about (30, 30): its width decides, 40 * 1.25 = 50 pixels become 192.
    matrix = crop_matrix((10, 20, 50, 40), SIZE)
    np.testing.assert_allclose(matrix, [[3.84, 0, 96 - 30 * 3.84], [0, 3.84, 128 - 30 * 3.84]], atol=1e-12)
    # One of 10 x 40: its height decides, 40 * 1.25 = 50 pixels become 256.
    matrix = crop_matrix((25, 10, 35, 50), SIZE)
    np.testing.assert_allclose(matrix[:, :2], 5.12 * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(warp_points(np.array([[30.0, 30.0]]), matrix), [[96, 128]])


def test_shift_scale_and_turn():
    box = (10, 20, 50, 40)
    moved = crop_matrix(box, SIZE, shift=(0.5, -1.0))  # looks at (50, 10)
    np.testing.assert_allclose(warp_points(np.array([[50.0, 10.0]]), moved), [[96, 128]], atol=1e-5)
    np.testing.assert_allclose(crop_matrix(box, SIZE, scale=2.0)[:, :2], 1.92 * np.eye(2), atol=1e-12)
    turned = crop_matrix(box, SIZE, degrees=90.0)  # what was on the right is below
    np.testing.assert_allclose(warp_points(np.array([[40.0, 30.0]]), turned), [[96, 128 + 38.4]], atol=1e-4)


def test_back_is_the_inverse_and_scores_stay():
    matrix = crop_matrix((3, 5, 40, 31), SIZE, 1.1, (0.1, -0.2), 0.8, 33.0)
    points = np.random.default_rng(0).random((5, 7, 3)) * 50
    there = warp_points(points, matrix)
    assert there.dtype == np.float32 and np.array_equal(there[..., 2], points[..., 2].astype(np.float32))
    np.testing.assert_allclose(warp_points(there, invert_affine(matrix)), points, atol=1e-4)


def test_pixels_are_where_coordinates_say():
    image = np.random.default_rng(0).integers(0, 255, (16, 12, 3), dtype=np.uint8)
    same = cut_crop(image, crop_matrix((0, 0, 12, 16), (16, 12), padding=1.0), (16, 12))
    assert np.array_equal(same, image)
    half = cut_crop(image, crop_matrix((0, 0, 12, 16), (8, 6), padding=1.0), (8, 6))  # each pixel of four
    means = image.reshape(8, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(half - means).max() <= 1


@pytest.mark.parametrize("pad_value", [0.0, 114.0])
def test_outside_of_the_image_is_padding(pad_value):
    image = np.full((10, 10, 3), 200, np.uint8)
    crop = cut_crop(image, crop_matrix((0, 0, 10, 10), (40, 40), padding=2.0), (40, 40), pad_value)
    assert (crop[:9] == pad_value).all() and (crop[11:29, 11:29] == 200).all() and (crop[:, 31:] == pad_value).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_images_that_opencv_does_not_warp_are_cropped_from_a_part(axis):
    """Of 40000 pixels in a direction: as from a smaller image with the same surroundings of the box."""
    small: np.ndarray = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    large: np.ndarray = np.zeros((300, 40000, 3), np.uint8)
    start = 39700  # the small one is the end of the large one
    large[:, start:] = small
    if axis == 0:
        large = np.ascontiguousarray(large.swapaxes(0, 1))
        small = np.ascontiguousarray(small.swapaxes(0, 1))
    shift = np.array([start, 0] * 2 if axis == 1 else [0, start] * 2)
    for box in ([100, 80, 150, 190], [260, 200, 299, 310]):  # inside, and over the border
        expected = cut_crop(small, crop_matrix(box, SIZE), SIZE)
        crop = cut_crop(large, crop_matrix(np.array(box) + shift, SIZE), SIZE)
        assert np.abs(crop.astype(int) - expected).max() <= 1


def test_a_crop_of_more_pixels_than_opencv_warps_is_an_error():
    image = np.zeros((4, 40000, 3), np.uint8)
    with pytest.raises(UserError, match=r"crop of 40000 x 4 pixels of an image, expected fewer than 32767"):
        cut_crop(image, crop_matrix([0, 0, 40000, 4], SIZE), SIZE)
