"""Pictures of more than 8 bits are noticed before they are trained on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.pixel_depth import depth_note, quick_check_range
from efftasks.datasets.semantic_check import check_semantic


def write(root: Path, *most: int, dtype: type = np.uint16, suffix: str = ".png") -> list[Path]:
    """Pictures with values up to these."""
    paths = []
    for i, value in enumerate(most):
        picture: np.ndarray = np.linspace(0, value, 6 * 8 * 3).reshape(6, 8, 3).astype(dtype)
        paths.append(root / f"{i:02}{suffix}")
        cv2.imwrite(str(paths[-1]), picture, [cv2.IMWRITE_TIFF_COMPRESSION, 1] if suffix == ".tif" else [])
    return paths


def test_12_bits_in_16_are_a_warning_that_says_what_to_state(tmp_path: Path) -> None:
    paths = write(tmp_path, *[1000] * 19, 4000)  # one of the others alone would be taken for 10 bits
    (finding,) = quick_check_range(paths, None)
    assert finding.level == "warning" and "\n" not in finding.message
    assert "00.png and others of 8 looked at: values 0..4000 in 16 bits" in finding.message
    assert "at most 15 of 255" in finding.message and finding.message.endswith("pixel_range=0,4095")
    assert quick_check_range(paths, (0, 4095)) == [] and depth_note(paths) == finding.message


def test_floats_are_an_error_since_nothing_tells_what_white_is(tmp_path: Path) -> None:
    (finding,) = quick_check_range(write(tmp_path, 1, dtype=np.float32, suffix=".tif"), None)
    assert finding.level == "error" and finding.message.endswith("pixel_range=0,1")


@pytest.mark.parametrize("most", [[65535] * 3, [3000, 3000, 60000]])  # some are dark
def test_full_range_pictures_are_not_noted(tmp_path: Path, most: list[int]) -> None:
    assert quick_check_range(write(tmp_path, *most), None) == []


def test_pictures_of_8_bits_and_broken_ones_are_not_noted(tmp_path: Path) -> None:
    paths = write(tmp_path, 255, 255, dtype=np.uint8)
    paths[1].write_bytes(b"no image")
    assert quick_check_range([*paths, tmp_path / "gone.tif", tmp_path / "a.jpg"], None) == []
    assert quick_check_range([], None) == []


def test_the_check_of_label_maps_notes_it_and_finds_no_fault(tmp_path: Path) -> None:
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "img", 4000)
    cv2.imwrite(str(tmp_path / "ann/00.png"), np.resize(np.uint8([0, 1]), (6, 8)))  # type: ignore[arg-type]
    report = check_semantic(tmp_path / "ann", classes="ab")
    assert report.ok and ["pixel_range=0,4095" in note for note in report.notes] == [True]


def test_the_check_of_coco_files_notes_it_too(tmp_path: Path) -> None:
    write(tmp_path, 4000)
    image = dict(id=1, file_name="00.png", width=8, height=6)
    data = dict(images=[image], annotations=[], categories=[dict(id=1, name="cat")])
    (tmp_path / "train.json").write_text(json.dumps(data))
    report = check_coco(tmp_path / "train.json", tmp_path)
    assert any("pixel_range=0,4095" in note for note in report.notes)
