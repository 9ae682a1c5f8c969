"""Cores are a partition of the image, and windows have their margins and lie on the grid of the network."""

from __future__ import annotations

import numpy as np
import pytest

from efftasks.runtime.tile_grid import Span, Tile, cut_window, make_grid, make_spans


@pytest.mark.parametrize("margin", [0, 16, 64, 96])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 2.0, 1 / 3, 0.7])
def test_spans(margin, scale):
    side, stride = 320, 32
    for length in [1, 5, 159, 160, 319, 320, 321, 511, 512, 513, 640, 1000, 1023, 4096, 8191]:
        spans = make_spans(length, scale, side, margin, stride)
        borders = [span.core_start for span in spans] + [length]
        assert borders[0] == 0 and (np.diff(borders) > 0).all()
        assert [span.core_stop for span in spans] == borders[1:]
        for span in spans:
            assert span.stop - span.start == np.ceil(side / scale - 1e-9)
            assert 0 <= span.start < length
            # to the end of the window or of the image, but for the rounding of both to pixels
            assert span.core_start - span.start >= margin / scale - 1.01 or span.start == 0
            assert span.stop - span.core_stop >= margin / scale - 1.01 or span.core_stop == length
            assert span.core_stop <= span.stop
            cells = span.start * scale / stride
            assert abs(cells - round(cells)) * stride / scale <= 0.51  # pixels of the image
        assert len(spans) == 1 or spans[-1].stop < length + stride / scale + 1.01
        count = -(-(np.ceil(length * scale - 1e-9) - 2 * margin) // (side - 2 * margin))
        assert len(spans) == (1 if length <= spans[0].stop else count)


def test_by_hand():
    assert make_spans(320, 1, 320, 64, 32) == [Span(0, 320, 0, 320)]
    assert make_spans(321, 1, 320, 64, 32) == [Span(0, 320, 0, 256), Span(32, 352, 256, 321)]
    assert make_spans(704, 1, 320, 64, 32) == [
        Span(0, 320, 0, 256),
        Span(192, 512, 256, 448),
        Span(384, 704, 448, 704),
    ]
    assert make_spans(480, 0.667, 320, 64, 32) == [Span(0, 480, 0, 480)]  # rounded: 320.2 pixels of the network input
    assert make_spans(700, 0.5, 320, 64, 32) == [Span(0, 640, 0, 512), Span(64, 704, 512, 700)]


@pytest.mark.parametrize("size", [(40, 50), (65, 500), (333, 97), (200, 200)])
def test_each_point_has_one_owner(size):
    random = np.random.default_rng(0)
    tiles = make_grid(size, (1.0, 0.7), (64, 96), 16, 8).tiles
    borders = [tile.x.core_start for tile in tiles]
    points = random.uniform(0, 1, (500, 2)) * [size[1], size[0]]
    points[::2, 0] = random.choice(borders, 250)  # on the borders themselves
    points[::3, 1] = random.choice([tile.y.core_start for tile in tiles], 167)
    assert (np.sum([tile.owns(points) for tile in tiles], axis=0) == 1).all()
    seen = np.zeros(size, int)
    for tile in tiles:
        seen[tile.core] += 1
    assert (seen == 1).all()


def test_a_core_is_met_by_boxes_that_touch_it():
    tile = Tile(Span(0, 64, 10, 20), Span(0, 64, 10, 20))
    boxes = np.array([[0, 0, 9.9, 30], [0, 0, 10, 10], [19.9, 19.9, 40, 40], [20, 12, 30, 30], [12, 12, 13, 13]])
    np.testing.assert_array_equal(tile.meets(boxes.astype(np.float32)), [False, True, True, False, True])


def test_a_window_inside_is_a_view_and_one_outside_is_padded():
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    inside = cut_window(image, Tile(Span(8, 40, 8, 40), Span(16, 48, 16, 48)), 114)
    assert np.shares_memory(inside, image)
    np.testing.assert_array_equal(inside, image[16:48, 8:40])
    outside = cut_window(image, Tile(Span(56, 88, 56, 70), Span(32, 64, 32, 50)), 114)
    np.testing.assert_array_equal(outside[:18, :14], image[32:, 56:])
    assert outside.shape == (32, 32, 3) and (outside[18:] == 114).all() and (outside[:, 14:] == 114).all()


def test_a_smaller_window_is_averaged_and_padded():
    image = np.random.default_rng(0).integers(0, 255, (40, 24, 3), dtype=np.uint8)
    window = cut_window(image, Tile(Span(0, 32, 0, 24), Span(0, 64, 0, 40)), 7, (16, 8))
    means = image.reshape(10, 4, 6, 4, 3).mean((1, 3))
    assert np.abs(window[:10, :6] - means).max() <= 0.51
    assert window.shape == (16, 8, 3) and (window[10:] == 7).all() and (window[:, 6:] == 7).all()
