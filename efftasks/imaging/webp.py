"""The Exif orientation of WebP files, which OpenCV ignores; it rotates JPEG, PNG and TIFF itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_webp", "upright", "webp_orientation"]

_ORIENTATION, _SHORT = 0x0112, 3  # the Exif tag, and its type
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def is_webp(data: bytes) -> bool:
    """Whether these are the bytes of a WebP file."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def webp_orientation(data: bytes) -> int:
    """The Exif orientation of a WebP file, 1 to 8; 1 where it has none, or a broken one."""
    exif = next((content for kind, content in _chunks(data) if kind == b"EXIF"), b"")
    exif = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        entries = [struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * i) for i in range(count)]
    except struct.error:
        return 1
    values = [value for tag, kind, _, value in entries if (tag, kind) == (_ORIENTATION, _SHORT)]
    return values[0] if values and 1 <= values[0] <= 8 else 1


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate and mirror (H, W, C) as an Exif orientation of 1 to 8 says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
