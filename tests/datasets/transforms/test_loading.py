"""One reading of pictures for training and devices, in any depth."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from efftasks.datasets.transforms.loading import LoadImage
from efftasks.imaging.images import UnreadableImage
from efftasks.imaging.sources import load_image
from efftasks.structures.errors import UserError

GRADIENT = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """A 12-bit gradient in 16 bits, one in colors, the same as floats of 0 to 1, and a picture of 8 bits."""
    colors = np.dstack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]])
    arrays = {
        "grey.png": GRADIENT,
        "grey.tif": GRADIENT,
        "colors.png": colors,
        "colors.tif": colors,
        "eight.png": (colors // 16).astype(np.uint8),
    }
    for name, array in arrays.items():
        cv2.imwrite(str(tmp_path / name), array)
    cv2.imwrite(str(tmp_path / "floats.tif"), (GRADIENT / 4095).astype(np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    return {path.name: path for path in tmp_path.iterdir()}


def loaded(path: Path, **options) -> np.ndarray:
    return LoadImage(**options)(dict(img_path=str(path)))["img"]


def warnings_of(caplog: pytest.LogCaptureFixture, run) -> list[str]:
    logger = MMLogger.get_instance("loading", log_level="INFO")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level("WARNING"):
            run()
    finally:
        logger.removeHandler(caplog.handler)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("pixel_range", [None, (0, 4095), (100, 3000.5)])
def test_training_and_device_read_the_same(pictures: dict[str, Path], pixel_range) -> None:
    for name, path in pictures.items():
        if name == "floats.tif":
            continue
        ours = loaded(path, pixel_range=pixel_range)
        notes: list[str] = []
        assert np.array_equal(ours, load_image(path, 0, pixel_range, notes.append).pixels), name
        assert ours.dtype == np.uint8 and len(notes) == (pixel_range is None and name != "eight.png")


def test_the_gradient_by_hand(pictures: dict[str, Path]) -> None:
    for name in ("grey.png", "grey.tif"):
        image = loaded(pictures[name], pixel_range=(0, 4095))
        expected = np.round(GRADIENT / 4095 * 255)
        assert np.array_equal(image, np.dstack([expected] * 3))
        assert loaded(pictures[name]).max() == 15  # nearly black
    assert np.array_equal(loaded(pictures["floats.tif"], pixel_range=(0, 1)), image)
    assert loaded(pictures["eight.png"], pixel_range=(0, 4095)).max() == 255  # has 8 bits already
    colors = loaded(pictures["colors.tif"], pixel_range=(0, 4095))
    assert np.array_equal(colors[..., 0], expected) and np.array_equal(colors[..., 2], expected[:, ::-1])


def test_a_dark_reading_is_warned_of_once(pictures: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    load = LoadImage()

    def run() -> None:
        for name in ("grey.png", "grey.tif", "eight.png"):
            load(dict(img_path=str(pictures[name])))

    (message,) = warnings_of(caplog, run)
    assert "grey.png: values 0..4095 in 16 bits" in message and "pixel_range=0,4095" in message


def test_full_range_pictures_make_no_noise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = (GRADIENT * 16).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), full)
    assert warnings_of(caplog, lambda: loaded(tmp_path / "a.png")) == []
    assert np.array_equal(loaded(tmp_path / "a.png")[..., 0], full // 256)


class Reads:
    """A data set of the same picture."""

    def __init__(self, path: Path) -> None:
        self.load, self.path = LoadImage(), path

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return int(self.load(dict(img_path=str(self.path)))["img"].max())


def test_workers_warn_once_in_all_epochs(pictures: dict[str, Path]) -> None:
    data = Reads(pictures["grey.png"])
    assert not data.load._has_warned
    for _ in range(2):  # new processes each time
        assert [int(value) for value in DataLoader(data, num_workers=1, batch_size=None)] == [15] * 4  # type: ignore[arg-type]
        assert data.load._has_warned  # the process that started them knows
    assert isinstance(pickle.loads(pickle.dumps(data.load)), LoadImage)


def test_errors_name_the_file(pictures: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"floats\.tif: got values 0\.\.1 in 32 bits of float") as caught:
        loaded(pictures["floats.tif"])
    assert not isinstance(caught.value, UnreadableImage)
    with pytest.raises(UnreadableImage):
        loaded(tmp_path / "gone.png", pixel_range=(0, 1))
    with pytest.raises(UserError, match="pixel_range: got 255, expected two numbers"):
        LoadImage(pixel_range=255)  # type: ignore[arg-type]
