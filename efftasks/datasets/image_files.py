"""Image files: find, read and write them, and detect truncated ones.

OpenCV fills the missing rest of a truncated JPEG with gray and reports no error, so the structure of a file is also
parsed up to its end marker. Damage inside the compressed data of a JPEG that has its end marker is not detected; the
checksums of a PNG detect that too.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efftasks.imaging.images import IMAGE_SUFFIXES, decode_pixels, read_pixels, seeming_range, to_eight_bits

__all__ = [
    "BrokenImageError",
    "find_images",
    "image_size",
    "is_file",
    "missing_part",
    "read_whole_file",
    "read_whole_image",
    "write_image",
]

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # the number of the Exif tag
_TRANSPOSED = (5, 6, 7, 8)  # orientations in which the sides change places
# In the scan of a JPEG, FF 00 is a data byte FF, FF D0..D7 are restart markers, and FF FF is padding.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class BrokenImageError(ValueError):
    """An image file cannot be used; the message is the predicate of a sentence, without the file's name."""


def read_whole_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) BGR like ``imaging.images.read_image``, and refuse truncated files.

    For display, not for training: more than 8 bits are scaled to 8 by the range that the pixels seem to use.

    Raises:
        BrokenImageError: the file is missing, empty, truncated or not an image.
    """
    pixels = decode_pixels(read_whole_file(path))
    if pixels is None:
        raise BrokenImageError("does not decode as an image")
    fallback = None if pixels.dtype == np.uint16 else (0, 1)  # where there is nothing but zeros
    return to_eight_bits(pixels, seeming_range(pixels) or fallback)


def read_whole_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BrokenImageError: the file is missing, empty or truncated.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BrokenImageError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # such as a zero byte in the name
        raise BrokenImageError("cannot be read (the name is none of a file)") from error
    if not data:
        raise BrokenImageError("is empty (0 bytes)")
    problem = missing_part(data)
    if problem:
        raise BrokenImageError(f"is truncated or damaged ({problem})")
    return data


def image_size(path: str | Path) -> tuple[int, int]:
    """The (height, width) that ``imaging.images.read_image`` gives, pixels; of a JPEG or PNG only the header is read.

    Raises:
        UnreadableImage: the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION, 1) if image.format in ("JPEG", "MPO") else None
            exif_free = image.format == "PNG" and "exif" not in image.info
    except Exception:  # PIL raises exceptions of many types for broken files, and refuses very large ones
        orientation, exif_free = None, False
    if orientation is None and not exif_free:
        height, width = read_pixels(path).shape[:2]
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an image in the format of the path's suffix (JPEG quality 92); the folder must exist."""
    done, data = cv2.imencode(Path(path).suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done, f"no encoder for {Path(path).suffix}"
    Path(path).write_bytes(data.tobytes())


def is_file(path: Path) -> bool:
    """Whether a path is a file; False also where the system refuses the name, as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def find_images(folder: str | Path) -> list[Path]:
    """All image files below a folder, sorted by path."""
    root = Path(folder)
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def missing_part(data: bytes) -> str | None:
    """What is missing in a truncated JPEG, PNG or WebP file; None if complete, or of another format."""
    if data.startswith(b"\xff\xd8"):
        return _walk_jpeg(data)
    if data.startswith(_PNG):
        return _walk_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and struct.unpack("<I", data[4:8])[0] + 8 > len(data):
        return "WebP data shorter than its header says"
    return None


def _walk_jpeg(data: bytes) -> str | None:
    """Go from segment to segment to the end marker; the end marker of an embedded thumbnail is inside a segment."""
    problem = "JPEG without its end mark"
    at = 2
    while True:
        while at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if at + 1 >= len(data):
            return problem
        if data[at] != 0xFF:
            return "JPEG with a broken segment"
        marker = data[at + 1]
        if marker == 0xD9:
            return None
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if at + 4 > len(data):
            return problem
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDA:  # the compressed scan has no length: it runs to the next mark
            next_marker = _NEXT_MARKER.search(data, at)
            if next_marker is None:
                return problem
            at = next_marker.start()


def _walk_png(data: bytes) -> str | None:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != struct.unpack(">I", data[end : end + 4])[0]:
            return f"PNG with a wrong checksum in its {kind.decode('latin-1')} chunk"
        if kind == b"IEND":
            return None
        at = end + 4
    return "PNG without its end chunk"
