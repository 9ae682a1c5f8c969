"""Run lengths letter by letter as pycocotools writes them."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from pycocotools import mask as reference

from efftasks.imaging.rle import decode_rle, encode_rle


def one_pixel(height: int, width: int, row: int, column: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[row, column] = True
    return mask


def ellipses(height: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    canvas = np.zeros((height, width), np.uint8)
    for value in (1, 1, 1, 0):  # the last cuts a hole
        center = tuple(int(v) for v in random.uniform(0, [width, height]))
        axes = tuple(int(v) for v in random.uniform(2, [width / 2, height / 2]))
        cv2.ellipse(canvas, center, axes, float(random.uniform(0, 180)), 0, 360, value, -1)
    return canvas.astype(bool)


MASKS = {
    "empty": np.zeros((7, 5), bool),
    "full": np.ones((7, 5), bool),
    "full_and_large": np.ones((1080, 1920), bool),
    "first_pixel": one_pixel(4, 6, 0, 0),
    "last_pixel": one_pixel(4, 6, 3, 5),
    "head_of_a_column": one_pixel(4, 6, 0, 3),
    "foot_of_a_column": one_pixel(4, 6, 3, 2),
    "one_row": np.array([[True, True, False, True, False, False]]),
    "one_column": np.array([[True], [False], [False], [True]]),
    "one_cell": np.ones((1, 1), bool),
    "stripes": np.tile(np.arange(64) % 2 == 1, (48, 1)),
    "bars": np.tile(np.arange(48)[:, None] % 2 == 1, (1, 64)),
    "hole": np.pad(np.zeros((3, 3), bool), 4, constant_values=True),
    **{f"noise_{share}": np.random.default_rng(3).random((97, 131)) < share for share in (0.02, 0.3, 0.5, 0.97)},
    **{f"ellipses_{seed}": ellipses(480 + seed, 640 - 3 * seed, seed) for seed in range(4)},
    "ellipses_large": ellipses(2160, 3840, 9),
    "view": ellipses(300, 200, 5)[::-1, ::2],
}


@pytest.mark.parametrize("name", MASKS)
def test_letters_are_those_of_pycocotools(name: str) -> None:
    mask = MASKS[name]
    expected = reference.encode(np.asfortranarray(mask, dtype=np.uint8))
    found = encode_rle(mask)
    assert found == {"size": list(mask.shape), "counts": expected["counts"].decode("ascii")}
    assert np.array_equal(decode_rle(found), mask) and decode_rle(found).dtype == np.bool_
    assert np.array_equal(reference.decode(found), mask)


def test_by_hand() -> None:
    # Down the columns: 2 outside, 3 inside, 1 outside. Small numbers are the letters from "0" on.
    mask = np.array([[False, True, True], [False, True, False]])
    assert encode_rle(mask) == {"size": [2, 3], "counts": "231"}


@pytest.mark.parametrize("seed", range(30))
def test_small_random_masks(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 40, 2)) < random.random()
    found = encode_rle(mask)
    assert found["counts"] == reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
    assert np.array_equal(decode_rle(found), mask)


def test_a_mask_of_a_film_is_quick() -> None:
    mask = ellipses(1080, 1920, 1)
    encode_rle(mask)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        encode_rle(mask)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.015


@pytest.mark.parametrize(
    ("mask", "said"),
    [(np.zeros((2, 3), np.uint8), "uint8 of shape"), (np.zeros((1, 2, 3), bool), r"shape \(1, 2, 3\)")],
)
def test_what_is_no_mask(mask: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=f"mask: got .*{said}"):
        encode_rle(mask)


@pytest.mark.parametrize("counts", ["", "232", "23", "2\x20", "2P", "9" + "Q" * 20 + "0", "23O3"])
def test_what_are_no_run_lengths(counts: str) -> None:
    with pytest.raises(ValueError, match="counts: got"):
        decode_rle({"size": [2, 3], "counts": counts})
