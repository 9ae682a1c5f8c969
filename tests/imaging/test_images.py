"""One way of reading an image file for training, checking and the runtimes."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.datasets.image_files import image_size, read_whole_image
from efftasks.imaging.images import UnreadableImage, range_note, read_image, seeming_range, to_eight_bits
from efftasks.structures.errors import UserError

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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"", r"is empty \(0 bytes\)"),
        (b"no image", "does not decode as an image"),
        (b"\x89PNG\r\n\x1a\n", r"is truncated or damaged \(PNG without its end chunk\)"),
    ],
)
def test_an_unreadable_image_names_its_file_and_survives_a_process_boundary(tmp_path, content, reason) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png: the image {reason}$") as caught:
        read_image(path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, UnreadableImage) and copy.path == str(path) and str(copy) == str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_size_of_the_header_is_that_of_the_picture(tmp_path, suffix, orientation) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_has_no_size(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"a\.png"):
        image_size(tmp_path / "a.png")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UnreadableImage):
        read_image("a\0b.png")


@pytest.mark.parametrize(
    ("values", "pixel_range", "expected"),
    [
        ([0, 1365, 2730, 4095], (0, 4095), [0, 85, 170, 255]),  # 12 bits in 16
        ([0, 1000, 1004, 2000, 3000, 60000], (1000, 3000), [0, 0, 1, 128, 255, 255]),  # 4 of 2000 is 0.51 of 255
        ([0, 255, 256, 4095, 65535], None, [0, 0, 1, 15, 255]),  # divided by 256
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_by_hand(tmp_path, suffix, values, pixel_range, expected) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.array([values], np.uint16))
    image = read_image(path, pixel_range)
    assert image.dtype == np.uint8 and image.shape == (1, len(values), 3)
    assert image[0, :, 0].tolist() == image[0, :, 2].tolist() == expected
    colors = np.stack([np.array(values), np.array(values)[::-1], np.zeros(len(values))], -1).astype(np.uint16)
    for more in ((), (np.full(len(values), 9),)):  # without alpha, and with one, which is left out
        cv2.imwrite(str(path), np.dstack([colors[None], *(plane[None].astype(np.uint16) for plane in more)]))
        image = read_image(path, pixel_range)
        assert image[0, :, 0].tolist() == expected and image[0, :, 1].tolist() == expected[::-1]
        assert not image[..., 2].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_need_a_range_and_are_read_by_it(tmp_path, channels) -> None:
    values = np.array([[0, 0.25, 0.5, 1, np.nan, np.inf]], np.float32)
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), values if channels == 1 else np.dstack([values] * 3), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert read_image(path, (0, 1))[0, :, 0].tolist() == [0, 64, 128, 255, 0, 255]
    assert read_image(path, (0, 0.5))[0, :, 1].tolist()[:4] == [0, 128, 255, 255]
    with pytest.raises(UserError, match=r"a\.tif: got values 0\.\.1 in 32 bits of float.* pixel_range=0,1$") as caught:
        read_image(path)
    assert not isinstance(caught.value, UnreadableImage)  # which training would skip
    assert read_whole_image(path)[0, 3].tolist() == [255] * 3  # to be looked at


def test_numbers_with_a_sign_need_a_range(tmp_path) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.array([[-1000, 0, 1000, 3000]], np.int16))
    assert read_image(path, (-1000, 1000))[0, :, 0].tolist() == [0, 128, 255, 255]
    with pytest.raises(UserError, match=r"values -1000\.\.3000 in 16 bits with sign.*pixel_range=-1000,3000"):
        read_image(path)


def test_pictures_of_8_bits_are_as_opencv_reads_them_whatever_the_range(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    picture = Image.fromarray(pixels)
    forms = {
        "rgb.png": picture,
        "grey.png": picture.convert("L"),
        "palette.png": picture.quantize(16),
        "alpha.png": picture.convert("RGBA"),
        "grey_alpha.png": picture.convert("LA"),
        "bits.png": picture.convert("1"),
        "cmyk.jpg": picture.convert("CMYK"),
        "grey.jpg": picture.convert("L"),
        "rgb.webp": picture,
        "rgb.bmp": picture,
        "rgb.tif": picture,
        "grey.tif": picture.convert("L"),
        "palette.tif": picture.quantize(16),
        "cmyk.tif": picture.convert("CMYK"),
        "alpha.tif": picture.convert("RGBA"),
        "bits.tif": picture.convert("1"),
    }
    for name, form in forms.items():
        form.save(tmp_path / name)
        expected = cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR)
        for pixel_range in (None, (0, 4095)):
            assert np.array_equal(read_image(tmp_path / name, pixel_range), expected), name
        assert np.array_equal(read_whole_image(tmp_path / name), expected), name


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_turned_as_their_exif_orientation_says(tmp_path, suffix) -> None:
    pixels = np.zeros((4, 8), np.uint16)
    pixels[:, :4] = 4095
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}", (0, 4095))
    assert image.shape == (8, 4, 3) and (image[:4] == 255).all() and not image[4:].any()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 4095], np.uint16), (0, 4095)),
        (np.array([7, 1000], np.uint16), (0, 1023)),
        (np.array([3, 200], np.uint16), (0, 255)),
        (np.array([0, 16383], np.uint16), (0, 16383)),
        (np.array([0, 16384], np.uint16), None),  # uses all of 16 bits
        (np.array([0, 0], np.uint16), None),
        (np.array([0, 255], np.uint8), None),
        (np.array([0.2, 0.9], np.float32), (0, 1)),
        (np.array([0, 254.5], np.float64), (0, 255)),
        (np.array([-0.5, 0.9, np.nan], np.float32), (-1, 1)),
        (np.array([300.5, 1000.5], np.float32), (300, 1001)),
        (np.array([-3, -3], np.int16), (-3, -2)),
        (np.array([0, 70000], np.int32), (0, 70000)),
    ],
)
def test_the_range_that_pixels_seem_to_have(values, expected) -> None:
    assert seeming_range(values) == expected


def test_pictures_that_would_be_dark_are_noted(tmp_path) -> None:
    notes: list[str] = []
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[16, 4095]], np.uint16))
    read_image(path, (0, 4095), notes.append)
    assert notes == []
    read_image(path, None, notes.append)
    text = "values 16..4095 in 16 bits; divided by 256 they are at most 15 of 255"
    assert notes == [f"{path}: {text}; state what is black and white, such as pixel_range=0,4095"]
    assert range_note(np.array([[0, 60000]], np.uint16)) is None  # full range: no noise


def test_large_values_keep_their_place() -> None:
    pixels = np.array([2**31 - 1, 2**30, 0], np.int32)
    assert to_eight_bits(pixels, (0, 2**31 - 1)).tolist() == [255, 128, 0]
