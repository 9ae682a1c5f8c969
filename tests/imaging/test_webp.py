"""The orientation of WebP files, which OpenCV leaves to others."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from efftasks.imaging.images import decode_pixels
from efftasks.imaging.webp import is_webp, upright, webp_orientation

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def webp(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "WEBP", lossless=True, exif=exif)
    return buffer.getvalue()


def entry(order: str, value: int, tag: int = 0x0112, kind: int = 3) -> bytes:
    """An Exif block with one field."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, tag, kind, 1, value, 0, 0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_as_pil_turns_them(orientation, prefix, order) -> None:
    data = webp(prefix + entry(order, orientation))
    assert is_webp(data) and webp_orientation(data) == orientation
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_pixels(data)[..., ::-1], expected)
    assert decode_pixels(data).flags.c_contiguous


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"II*\0" + struct.pack("<I", 999),
        b"II*\0" + struct.pack("<IH", 8, 50),
        b"no Exif block",
        entry("<", 0),
        entry("<", 9),
        entry("<", 6, tag=0x0100),
        entry("<", 6, kind=2),
    ],
)
def test_a_broken_orientation_is_none(exif) -> None:
    data = webp(exif)
    assert webp_orientation(data) == 1
    np.testing.assert_array_equal(decode_pixels(data)[..., ::-1], PIXELS)


def test_other_data_have_none() -> None:
    assert not is_webp(b"") and webp_orientation(b"") == 1 and webp_orientation(webp(b"")[:40]) == 1


def test_turning_twice_comes_back() -> None:
    for orientation, inverse in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)):
        np.testing.assert_array_equal(upright(upright(PIXELS, orientation), inverse), PIXELS)
