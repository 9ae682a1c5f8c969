from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.imaging.file_faults import missing_part
from efftasks.imaging.semantic_drawing import draw_legend, draw_semantic, semantic_palette, write_indexed_png

IGNORE = 255


def noise(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def maps(height: int = 20, width: int = 30, classes: int = 5) -> np.ndarray:
    labels = np.random.default_rng(1).integers(0, classes, (height, width), dtype=np.uint8)
    labels[3:6, 4:9] = IGNORE
    return labels


def test_colors_are_those_of_pascal_voc_without_its_black() -> None:
    # The development kit's list: aeroplane, bicycle, bird, boat, bottle, bus, car, cat, ..., tv monitor in RGB.
    voc = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 7: (128, 128, 128), 8: (64, 0, 0)}
    voc |= {15: (192, 128, 128), 16: (0, 64, 0), 20: (0, 64, 128)}
    colors = semantic_palette(20)
    assert {number: colors[number - 1][::-1] for number in voc} == voc


def test_colors_are_distinct_and_a_longer_palette_begins_with_the_shorter() -> None:
    colors = semantic_palette(256)
    assert len(set(colors)) == 256 and (0, 0, 0) not in colors
    assert semantic_palette(19) == colors[:19] and semantic_palette(0) == []
    close = [np.linalg.norm(np.subtract(a, b)) for i, a in enumerate(colors[:60]) for b in colors[:i]]
    assert min(close) >= 64
    for wrong in (-1, 257):
        with pytest.raises(ValueError, match=f"num_classes: got {wrong}"):
            semantic_palette(wrong)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_a_pixel_is_the_mean_of_image_and_color_and_ignored_ones_stay(opacity) -> None:
    image, labels, colors = noise(), maps(), [(10, 20, 30), (255, 255, 255), (0, 0, 0), (0, 0, 255), (7, 99, 1)]
    before = image.copy()
    drawn = draw_semantic(image, labels, colors, opacity)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    np.testing.assert_array_equal(image, before)
    for row, column in np.ndindex(labels.shape):
        label, pixel = labels[row, column], image[row, column]
        expected = pixel if label == IGNORE else opacity * np.array(colors[label]) + (1 - opacity) * pixel
        assert np.abs(drawn[row, column] - expected).max() <= (0 if label == IGNORE else 0.5 + 1e-4)


def test_default_colors_and_another_label_to_ignore() -> None:
    image, labels = noise(), maps()
    drawn = draw_semantic(image, labels, opacity=1, ignore=2)
    np.testing.assert_array_equal(drawn[labels == 2], image[labels == 2])
    assert {tuple(pixel) for pixel in drawn[labels == IGNORE].tolist()} == {semantic_palette(256)[IGNORE]}
    np.testing.assert_array_equal(draw_semantic(image, np.full_like(labels, IGNORE), []), image)
    mirrored = draw_semantic(image[:, ::-1], labels[:, ::-1], opacity=1, ignore=2)  # views, with steps below 0
    np.testing.assert_array_equal(mirrored, drawn[:, ::-1])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("labels: got shape", {"labels": np.zeros((20, 31), np.uint8)}),
        ("labels: got shape", {"image": noise(channels=1)}),
        ("labels: got int64", {"labels": np.zeros((20, 30), np.int64)}),
        ("labels: got 4, expected below 3", {"palette": [(0, 0, 0)] * 3, "labels": np.full((20, 30), 4, np.uint8)}),
        ("labels: got 255, expected below 5", {"palette": [(0, 0, 0)] * 5, "ignore": 254}),
        ("opacity: got 1.5", {"opacity": 1.5}),
    ],
)
def test_what_does_not_fit_is_refused(message, change) -> None:
    with pytest.raises(ValueError, match=message):
        draw_semantic(**{"image": noise(), "labels": maps(), **change})


def test_the_legend_has_every_color_in_a_row_and_starts_a_new_one_where_it_is_full() -> None:
    names, colors = ["road", "sky", "café \ud800", "x"], semantic_palette(4)
    for width in (600, 120, 60):
        legend = draw_legend(names, colors, width)
        assert legend.dtype == np.uint8 and legend.shape[1:] == (width, 3) and legend.shape[0] % 26 == 0
        for color in colors:
            assert (legend == color).all(-1).sum() == 18 * 18
        text = (legend == 235).all(-1)  # one color for letters
        assert text.any() and not text[:, :18].any()
    assert len(draw_legend(names, colors, 600)) == 26 and len(draw_legend(names, colors, 60)) == 4 * 26
    with pytest.raises(ValueError, match="got 3 colors for 4 names"):
        draw_legend(names, colors[:3], 600)
    with pytest.raises(ValueError, match="width, height: got 30"):
        draw_legend(names, colors, 30)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (360, 481)])
@pytest.mark.parametrize("classes", [1, 19, 255])
def test_a_palette_png_is_read_back_by_pil(tmp_path, height, width, classes) -> None:
    labels = np.random.default_rng(2).integers(0, classes, (height, width), dtype=np.uint8)
    colors = semantic_palette(classes)
    write_indexed_png(tmp_path / "a.png", labels, colors)
    assert missing_part((tmp_path / "a.png").read_bytes()) is None
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and image.size == (width, height)
        np.testing.assert_array_equal(np.asarray(image), labels)
        palette = np.array(image.getpalette()).reshape(-1, 3)
        assert [(b, g, r) for r, g, b in palette.tolist()] == colors
    shown = cv2.imread(str(tmp_path / "a.png"))  # a second reader: the colors, by libpng
    np.testing.assert_array_equal(shown, np.array(colors, np.uint8)[labels])


def test_labels_beyond_the_palette_are_black(tmp_path) -> None:
    labels = maps()
    write_indexed_png(tmp_path / "a.png", labels, semantic_palette(5))
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert np.array(image.getpalette()).reshape(-1, 3).shape == (256, 3)
    assert not cv2.imread(str(tmp_path / "a.png"))[labels == IGNORE].any()
    write_indexed_png(tmp_path / "b.png", labels, [])
    assert not cv2.imread(str(tmp_path / "b.png")).any()


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 4), np.int64), np.zeros((3, 4, 1), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_only_label_maps_of_8_bit_are_written(tmp_path, labels) -> None:
    with pytest.raises(ValueError, match="labels: got"):
        write_indexed_png(tmp_path / "a.png", labels, semantic_palette(3))
    with pytest.raises(ValueError, match="palette: got 257 colors"):
        write_indexed_png(tmp_path / "a.png", maps(), [(0, 0, 0)] * 257)
    assert not any(tmp_path.iterdir())
