"""Image files: find, read and write them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efftasks.imaging.file_faults import BrokenImageError, fault_of, missing_part, read_bytes
from efftasks.imaging.images import IMAGE_SUFFIXES, decode_pixels, read_pixels, seeming_range, to_eight_bits

__all__ = [
    "check_whole",
    "find_images",
    "image_size",
    "is_file",
    "read_whole_file",
    "read_whole_image",
    "write_image",
]

_ORIENTATION = 0x0112  # the number of the Exif tag
_TRANSPOSED = (5, 6, 7, 8)  # orientations in which the sides change places


def read_whole_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) BGR like ``imaging.images.read_image``, and refuse truncated files.

    For display, not for training: more than 8 bits are scaled to 8 by the range that the pixels seem to use.

    Raises:
        BrokenImageError: the file is missing, empty, truncated or not an image.
    """
    pixels = decode_pixels(read_whole_file(path))
    fallback = None if pixels.dtype == np.uint16 else (0, 1)  # where there is nothing but zeros
    return to_eight_bits(pixels, seeming_range(pixels) or fallback)


def read_whole_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BrokenImageError: the file is missing, empty or truncated.
    """
    data = read_bytes(path)
    check_whole(data)
    return data


def check_whole(data: bytes) -> None:
    """Raise a BrokenImageError where the bytes of an image file are empty or truncated."""
    if not data or missing_part(data):
        raise BrokenImageError(fault_of(data))


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
