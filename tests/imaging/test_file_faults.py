"""Why an image cannot be read, from its bytes alone: what OpenCV does with them is another question."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from efftasks.imaging.file_faults import BrokenImageError, fault_of, is_truncated_jpeg, missing_part
from efftasks.imaging.images import decode_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_jpegs_whatever_opencv_makes_of_them(progressive, share) -> None:
    whole = jpeg(progressive=progressive)
    assert not is_truncated_jpeg(whole) and not is_truncated_jpeg(whole + b"more")
    part = whole[: int(len(whole) * share)]
    assert is_truncated_jpeg(part) and is_truncated_jpeg(whole[:-2])
    with pytest.raises(BrokenImageError, match=r"^is truncated or damaged \(JPEG without its end mark\)$"):
        decode_pixels(part)


def test_the_end_mark_of_a_thumbnail_is_not_that_of_the_picture() -> None:
    thumbnail = jpeg(quality=5)
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = jpeg()
    assert not is_truncated_jpeg(whole[:2] + segment + whole[2:])
    assert is_truncated_jpeg(whole[:2] + segment + whole[2:200])


def test_what_decodes_with_a_damaged_segment_is_no_truncated_file() -> None:
    """Programs write superfluous bytes between segments; decoders pass over them, and so does reading."""
    whole = jpeg()
    at = whole.index(b"\xff\xdb")
    odd = whole[:at] + b"\0\0" + whole[at:]
    assert missing_part(odd) == "JPEG with a broken segment" and not is_truncated_jpeg(odd)
    np.testing.assert_array_equal(decode_pixels(odd), decode_pixels(whole))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND" + b"\xaeB`\x82", "does not decode as an image"),
        (b"hello", "does not decode as an image"),
        (
            b"\0\0\0\x20ftypheic" + bytes(20),
            "is of the format HEIC, which this OpenCV does not decode; save it as JPEG or PNG",
        ),
        (
            b"\0\0\0\x20ftypavif" + bytes(20),
            "is of the format AVIF, which this OpenCV does not decode; save it as JPEG or PNG",
        ),
        (b"\0\0\0\x20ftypisom" + bytes(20), "does not decode as an image"),  # a film
    ],
)
def test_faults(data, fault) -> None:
    assert fault_of(data) == fault
