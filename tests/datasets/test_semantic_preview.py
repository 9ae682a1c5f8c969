from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.semantic_preview import NO_CLASS, preview_semantic
from efftasks.imaging.semantic_drawing import semantic_palette
from efftasks.structures.errors import UserError

GREY = 90


@pytest.fixture
def root(tmp_path) -> Path:
    """Six grey images of 600 x 500; the left half of class 0, the right of class 1, the lowest fifth ignored."""
    labels = np.zeros((500, 600), np.uint8)
    labels[:, 300:] = 1
    labels[400:] = 255
    for number in range(6):
        for folder in (f"img/{number % 2}", f"ann/{number % 2}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f"img/{number % 2}/{number}.png"), np.full((500, 600, 3), GREY, np.uint8))
        cv2.imwrite(str(tmp_path / f"ann/{number % 2}/{number}.png"), labels)
    (tmp_path / "classes.json").write_text(json.dumps(["road", "sky"]))
    return tmp_path


def test_colors_lie_where_the_classes_are(root, tmp_path) -> None:
    result = preview_semantic(root / "ann", None, tmp_path / "out", num=4)
    assert len(result.files) == 4 and result.left_out == []
    assert set((tmp_path / "out").iterdir()) == {*result.files, result.sheet}
    picture = cv2.imread(str(result.files[0])).astype(int)
    assert picture.shape == (500, 600, 3)
    for color, x in zip(semantic_palette(2), (150, 450)):
        expected = (np.array(color) + GREY) / 2
        assert np.abs(picture[200, x] - expected).max() <= 4  # JPEG
    assert np.abs(picture[450] - GREY).max() <= 4


def test_the_sheet_has_a_legend_in_the_colors_of_the_file(root, tmp_path) -> None:
    colors = [[200, 100, 10], [1, 2, 250]]  # RGB
    entries = [{"trainId": k, "name": f"c{k}", "color": color} for k, color in enumerate(colors)]
    (root / "classes.json").write_text(json.dumps({"classes": entries}))
    sheet = cv2.imread(str(preview_semantic(root / "ann", None, tmp_path / "out", num=2).sheet))
    legend = sheet[-26:]
    for color in colors:
        assert (legend == color[::-1]).all(-1).sum() == 18 * 18
    assert np.abs(sheet[200, 100].astype(int) - (np.array(colors[0][::-1]) + GREY) / 2).max() <= 4


def test_numbers_without_a_class_stand_out_and_without_names_are_the_legend(root, tmp_path) -> None:
    sheet = cv2.imread(str(preview_semantic(root / "ann", None, tmp_path / "out", classes=["road"]).sheet))
    assert (sheet[-26:] == NO_CLASS).all(-1).sum() == 18 * 18
    (root / "classes.json").unlink()
    result = preview_semantic(root / "ann", None, tmp_path / "numbers", ignore=0)
    legend = cv2.imread(str(result.sheet))[-26:]
    colors = semantic_palette(256)
    shown = [number for number in range(256) if (legend == colors[number]).all(-1).sum() >= 18 * 18]
    assert shown == [1, 255]


def test_the_seed_chooses_the_images(root, tmp_path) -> None:
    def names(seed: int) -> list[str]:
        return [path.name for path in preview_semantic(root / "ann", None, tmp_path / "out", 2, seed).files]

    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(6)}) > 1


def test_large_images_are_drawn_smaller_and_small_ones_larger(tmp_path) -> None:
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    for name, side in (("large", 2000), ("small", 30)):
        cv2.imwrite(str(tmp_path / f"img/{name}.png"), np.zeros((side // 2, side, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"ann/{name}.png"), np.ones((side // 2, side), np.uint8))
    large, small = preview_semantic(tmp_path / "ann", None, tmp_path / "out").files
    assert cv2.imread(str(large)).shape == (800, 1600, 3) and cv2.imread(str(small)).shape == (240, 480, 3)


def test_names_that_would_fall_together_and_ignored_pixels_only(tmp_path) -> None:
    for folder in ("img/x", "ann/x"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("x/a", "x_a", "contact_sheet"):
        cv2.imwrite(str(tmp_path / f"img/{name}.png"), np.zeros((20, 20, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"ann/{name}.png"), np.full((20, 20), 255, np.uint8))
    result = preview_semantic(tmp_path / "ann", tmp_path / "img", tmp_path / "out")
    assert len(set(result.files)) == 3 and result.sheet is not None and result.sheet.name == "contact_sheet.png"
    assert all(path.stem != "contact_sheet" for path in result.files)


def test_what_cannot_be_drawn_is_left_out_and_named(root, tmp_path) -> None:
    cv2.imwrite(str(root / "ann/0/0.png"), np.zeros((500, 600, 3), np.uint8))
    cv2.imwrite(str(root / "ann/0/2.png"), np.zeros((500, 599), np.uint8))
    cv2.imwrite(str(root / "ann/0/4.png"), np.full((500, 600), 300, np.uint16))
    (root / "img/1/1.png").write_bytes(b"")
    (root / "ann/1/3.png").unlink()
    result = preview_semantic(root / "ann", None, tmp_path / "out")
    assert [file.name for file in result.files] == ["1_5.jpg"]
    for part in ("1 images without a label map", "3 channels", "599 x 500", "up to 300", "1.png is empty"):
        assert sum(part in what for what in result.left_out) == 1, (part, result.left_out)


def test_wrong_calls(root, tmp_path) -> None:
    for message, options in (
        ("num: got 0", {"num": 0}),
        ("gone: no such folder of label maps", {"labels": root / "gone"}),
        ("gone: no such folder of images", {"images": root / "gone"}),
        ("ignore: got 1, which is class 'sky'", {"ignore": 1}),
        ("not one image of 6 has a label map", {"labels": root / "ann/0", "images": root / "img"}),
    ):
        with pytest.raises(UserError, match=message):
            preview_semantic(**{"labels": root / "ann", "images": None, "out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()
    for path in root.glob("ann/*/*.png"):
        path.write_bytes(b"")
    (root / "ann/1/1.png").unlink()
    with pytest.raises(UserError, match=r"none of 2 label maps can be drawn, the first: .*/[024]\.png: the image"):
        preview_semantic(root / "ann", None, tmp_path / "out", num=2)


def test_a_real_set_is_drawn(real_data, tmp_path) -> None:
    result = preview_semantic(real_data / "camvid/ann/val", None, tmp_path, num=3)
    assert len(result.files) == 3 and result.left_out == []
