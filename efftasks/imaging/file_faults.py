"""Why an image file cannot be used, from its bytes: empty, truncated, too large, or of another format.

OpenCV reports no reason, and its versions disagree: older ones (4.8) fill the missing rest of a truncated JPEG with
gray. So the structure of a file is parsed up to its end marker. Damage inside the compressed data of a JPEG that has
its end marker is not detected; the checksums of a PNG detect that too.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

__all__ = ["BrokenImageError", "fault_of", "is_truncated_jpeg", "missing_part", "read_bytes"]

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SIDE = 10**6  # the limit of libpng
_NO_END_OF_JPEG = "JPEG without its end mark"
# In the scan of a JPEG, FF 00 is a data byte FF, FF D0..D7 are restart markers, and FF FF is padding.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Brands of files of the ISO container, as telephones write them.
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}


class BrokenImageError(ValueError):
    """An image file cannot be used; the message is the predicate of a sentence, without the file's name."""


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        BrokenImageError: it is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BrokenImageError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # such as a zero byte in the name
        raise BrokenImageError("cannot be read (the name is none of a file)") from error


def fault_of(data: bytes) -> str:
    """Why OpenCV does not decode these bytes, as the predicate of a sentence."""
    if not data:
        return "is empty (0 bytes)"
    problem = missing_part(data)
    if problem:
        return f"is truncated or damaged ({problem})"
    if data.startswith(_PNG) and data[12:16] == b"IHDR":
        width, height = struct.unpack(">II", data[16:24])
        if max(width, height) > _PNG_SIDE:
            return f"has {width} x {height} pixels, expected at most {_PNG_SIDE} on a side of a PNG"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return f"is of the format {_BRANDS[data[8:12]]}, which this OpenCV does not decode; save it as JPEG or PNG"
    return "does not decode as an image"


def is_truncated_jpeg(data: bytes) -> bool:
    """Whether the end of a JPEG is missing; older versions of OpenCV (4.8) decode it nevertheless."""
    return data.startswith(_JPEG) and _walk_jpeg(data) == _NO_END_OF_JPEG


def missing_part(data: bytes) -> str | None:
    """What is missing in a truncated JPEG, PNG or WebP file; None if complete, or of another format."""
    if data.startswith(_JPEG):
        return _walk_jpeg(data)
    if data.startswith(_PNG):
        return _walk_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and struct.unpack("<I", data[4:8])[0] + 8 > len(data):
        return "WebP data shorter than its header says"
    return None


def _walk_jpeg(data: bytes) -> str | None:
    """Go from segment to segment to the end marker; the end marker of an embedded thumbnail is inside a segment."""
    problem = _NO_END_OF_JPEG
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
