"""One way of reading an image file for training, checking and the runtimes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efftasks.datasets.image_files import read_whole_image
from efftasks.structures.errors import UserError
from efftasks.structures.images import UnreadableImage, read_image

ORIENTATION = 274  # the Exif tag
RED, BLUE = (0, 0, 255), (255, 0, 0)  # BGR


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A telephone's photo: stored 40 wide and 20 high, red on its left, and to be turned clockwise by a quarter."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0], pixels[:, 20:, 2] = 255, 255  # RGB
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("read", [read_image, read_whole_image])
def test_pictures_are_turned_as_their_exif_orientation_says(photo, read) -> None:
    image = read(photo)
    assert image.shape == (40, 20, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[5, 10], RED, atol=12)  # what was left is at the top
    np.testing.assert_allclose(image[35, 10], BLUE, atol=12)


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_image_names_its_file_and_survives_a_process_boundary(tmp_path, content) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: the image is missing or cannot be decoded") as caught:
        read_image(path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, UnreadableImage) and copy.path == str(path) and str(copy) == str(caught.value)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UnreadableImage):
        read_image("a\0b.png")
