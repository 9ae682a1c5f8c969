"""Scale jitter and crop: geometry by hand, image and label map move together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from efftasks import apis
from efftasks.datasets.transforms.random_scaled_crop import RandomScaledCrop


def sample(height: int, width: int) -> dict:
    """An image whose blue and green say the row and the column, with the same in the labels' parity."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return dict(img=image, gt_seg_map=((rows // 10 + columns // 10) % 2).astype(np.uint8), seg_map_path="a.png")


@pytest.mark.parametrize("size", [(64, 96), (40, 200), (120, 150), (100, 150)])
def test_size_and_padding(size: tuple[int, int]) -> None:
    np.random.seed(0)
    found = RandomScaledCrop(size, scale=(1.0, 1.0), fit=(100, 150))(sample(100, 150))
    assert found["img"].shape == (*size, 3) and found["gt_seg_map"].shape == size and found["img_shape"] == size
    height, width = min(size[0], 100), min(size[1], 150)
    inside = found["img"][:height, :width]
    assert (found["img"][height:] == 114).all() and (found["gt_seg_map"][height:] == 255).all()
    assert (found["img"][:, width:] == 114).all() and (found["gt_seg_map"][:, width:] == 255).all()
    # At factor 1 it is a plain crop: rows and columns follow each other, and the labels are those of their pixels.
    assert (np.diff(inside[..., 0].astype(int), axis=0) == 1).all()
    assert (np.diff(inside[..., 1].astype(int), axis=1) == 1).all()
    expected = (inside[..., 0] // 10 + inside[..., 1] // 10) % 2
    assert np.array_equal(found["gt_seg_map"][:height, :width], expected)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_factor_is_of_the_image_that_fits(factor: float) -> None:
    np.random.seed(1)
    found = RandomScaledCrop((60, 60), scale=(factor, factor), fit=(50, 75), class_share=0)(sample(100, 150))
    # The image fits at half its size: factor 2 is the image as it is, factor 0.5 a quarter of it.
    step = np.diff(found["img"][:20, 5, 0].astype(float)).mean()
    assert step == pytest.approx(2 / factor, rel=0.06)
    kept = found["gt_seg_map"] != 255
    assert kept.all(1).sum() == 0 if factor == 0.5 else kept.all()
    assert kept.sum() == (25 * 38 if factor == 0.5 else 3600)


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.0, 1.3, 1.9])
def test_labels_lie_where_their_pixels_do(factor: float) -> None:
    item = sample(200, 200)
    item["gt_seg_map"] = item["img"][..., 0].copy()
    found = RandomScaledCrop((40, 40), scale=(factor, factor), fit=(200, 200), class_share=0)(item)
    # Rows of the image and of the labels, in pixels of the original: within half a pixel of the crop on the average.
    error = (found["gt_seg_map"].astype(float) - found["img"][..., 0])[5:-5].mean()
    assert abs(error * factor) < 0.2


def test_sizes_come_from_the_config_where_the_transform_leaves_them_open() -> None:
    options = {"classes": ["a", "b"], "image_size": (64, 96), "crop_size": (32, 48)}
    place = "train_dataloader.dataset.pipeline.2"
    name = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"
    for given, expected in (
        ({}, ((32, 48), (64, 96))),
        ({f"{place}.fit": (128, 192)}, ((32, 48), (128, 192))),
        ({f"{place}.size": (16, 24)}, ((16, 24), None)),
    ):
        crop = apis.load_config(name, {**options, **given}).train_dataloader.dataset.pipeline[2]
        assert crop.type == "RandomScaledCrop" and (crop["size"], crop.get("fit")) == expected


def test_rare_classes_are_centered() -> None:
    np.random.seed(2)
    item = sample(200, 200)
    item["gt_seg_map"][:] = 0
    item["gt_seg_map"][150, 60] = 7  # one pixel in 40000
    item["gt_seg_map"][:20] = 255  # nothing to center on
    hits = [
        7 in RandomScaledCrop((40, 40), (1, 1), (200, 200), share)(dict(item))["gt_seg_map"] for share in [1.0] * 200
    ]
    plain = [
        7 in RandomScaledCrop((40, 40), (1, 1), (200, 200), share)(dict(item))["gt_seg_map"] for share in [0.0] * 200
    ]
    # Two classes are as likely: half of the crops have the pixel, against 40 * 40 of the 161 * 161 plain ones.
    assert 75 <= sum(hits) <= 130 and sum(plain) <= 30


@pytest.mark.parametrize(("row", "column", "expected"), [(150, 60, (20, 20)), (5, 100, (5, 20)), (199, 199, (39, 39))])
def test_the_pixel_is_the_center_as_far_as_the_image_allows(row, column, expected) -> None:
    item = sample(200, 200)
    item["gt_seg_map"][:] = 255
    item["gt_seg_map"][row, column] = 7  # the only class
    found = RandomScaledCrop((40, 40), (1, 1), (200, 200), 1.0)(item)["gt_seg_map"]
    assert np.argwhere(found == 7).tolist() == [list(expected)]


def test_what_is_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (dict(size=None), "size: got None"),
        (dict(size=(8, 8), scale=(2, 1)), "scale: got"),
        (dict(size=(8, 8), class_share=2), "class_share: got 2"),
    ]
    for arguments, said in cases:
        with pytest.raises(ValueError, match=said):
            RandomScaledCrop(**arguments)
    with pytest.raises(ValueError, match=r"a.png: got \(50, 40\), expected \(100, 150\)"):
        RandomScaledCrop((8, 8))(dict(sample(100, 150), gt_seg_map=np.zeros((50, 40), np.uint8)))
