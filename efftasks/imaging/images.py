"""Images from files, the same way for training, testing and the runtimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "UnreadableImage",
    "decode_image",
    "decode_pixels",
    "range_note",
    "read_image",
    "read_pixels",
    "seeming_range",
    "to_eight_bits",
]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # what counts as an image in a folder
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS = (8, 10, 12, 14, 16)  # of cameras and scanners


class UnreadableImage(UserError):
    """An image file is missing or does not decode; ``path`` names it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{path}: the image is missing or cannot be decoded")
        self.path = str(path)

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str]]:
        return UnreadableImage, (self.path,)  # a loader's worker process hands its exceptions over


def decode_pixels(data: bytes) -> NDArray[Any] | None:
    """The bytes of an image file -> (H, W, 3) BGR in the depth of the file, turned as its Exif orientation says.

    Returns:
        uint8, or another type where the file has more than 8 bits a channel; None if it is no image.
    """
    if not data:
        return None
    buffer = np.frombuffer(data, np.uint8)
    try:
        if data.startswith(_TIFF):  # asked for colours, OpenCV refuses grey numbers of 32 bits
            image = cv2.imdecode(buffer, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
            if image is not None and image.dtype != np.uint8:
                return _three_channels(image)
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # sizes beyond OpenCV's limits
        return None
    return None if image is None else np.asarray(image)


def _three_channels(image: NDArray[Any]) -> NDArray[Any]:
    planes = image.reshape(*image.shape[:2], -1)
    return np.ascontiguousarray(planes[..., :3] if planes.shape[2] >= 3 else np.repeat(planes[..., :1], 3, 2))


def decode_image(data: bytes, pixel_range: PixelRange | None = None) -> NDArray[np.uint8] | None:
    """The bytes of an image file -> uint8 (H, W, 3) BGR, turned as its Exif orientation says; None if it is none.

    Raises:
        UserError: as :func:`to_eight_bits`.
    """
    pixels = decode_pixels(data)
    return None if pixels is None else to_eight_bits(pixels, pixel_range)


def to_eight_bits(pixels: NDArray[Any], pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Bring an image of any depth to uint8; one of 8 bits stays as it is.

    Args:
        pixels: of any shape.
        pixel_range: what becomes 0 and 255; values between are rounded, values outside clipped. None divides 16 bits
            by 256.

    Raises:
        UserError: the pixels are floats or have a sign, and no range is stated: nothing tells what white is.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    if pixel_range is None:
        if pixels.dtype == np.uint16:
            return (pixels >> 8).astype(np.uint8)
        low, high = seeming_range(pixels) or (0, 1)
        raise UserError(
            f"got {_describe(pixels)}, expected 8 or 16 bits without sign, or pixel_range, what is black and white, "
            f"such as pixel_range={low},{high}"
        )
    low, high = pixel_range
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    whole = np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)
    return np.asarray(whole)


def seeming_range(pixels: NDArray[Any]) -> PixelRange | None:
    """What seems to be black and white; None where an image reads well without a range, or has nothing but zeros.

    16 bits that reach above a quarter of what they could hold are taken to use all of it.
    """
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if pixels.dtype == np.uint8 or not values.size or not values.any():
        return None
    least, most = values.min().item(), values.max().item()
    if pixels.dtype.kind == "f" and least >= 0 and most <= 255:
        return (0, 1) if most <= 1 else (0, 255)
    if least >= 0:
        fitting = next((2**bits - 1 for bits in _BITS if most < 2**bits), None)
        if fitting is not None and pixels.dtype.kind != "f":
            return None if pixels.dtype == np.uint16 and fitting == 2**16 - 1 else (0, fitting)
    return math.floor(least), max(math.floor(least) + 1, math.ceil(most))


def range_note(pixels: NDArray[Any]) -> str | None:
    """What to say of an image that is read without a range and should not be; None where it reads well."""
    span = seeming_range(pixels)
    if span is None:
        return None
    effect = f"; divided by 256 they are at most {pixels.max() >> 8} of 255" if pixels.dtype == np.uint16 else ""
    return f"{_describe(pixels)}{effect}; state what is black and white, such as pixel_range={span[0]},{span[1]}"


def _describe(pixels: NDArray[Any]) -> str:
    kind = {"f": "bits of float", "i": "bits with sign"}.get(pixels.dtype.kind, "bits")
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    ends = f"{values.min():.6g}..{values.max():.6g}" if values.size else "nan"
    return f"values {ends} in {pixels.dtype.itemsize * 8} {kind}"


def read_pixels(path: str | Path) -> NDArray[Any]:
    """As :func:`decode_pixels`, of a file.

    Raises:
        UnreadableImage: the file is missing, empty, truncated beyond decoding, or no image.
    """
    try:
        pixels = decode_pixels(Path(path).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: such as a zero byte in the name
        raise UnreadableImage(path) from error
    if pixels is None:
        raise UnreadableImage(path)
    return pixels


def read_image(
    path: str | Path, pixel_range: PixelRange | None = None, warn: Callable[[str], None] | None = None
) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (H, W, 3) BGR, turned as its Exif orientation says.

    Args:
        path: the file.
        pixel_range: as :func:`to_eight_bits`; pictures of 8 bits are read as they are.
        warn: gets a sentence where 16 bits seem to need a range and none is stated.

    Raises:
        UnreadableImage: the file is missing, empty, truncated beyond decoding, or no image.
        UserError: it has floats, or numbers with a sign, and no range is stated.
    """
    pixels = read_pixels(path)
    try:
        image = to_eight_bits(pixels, pixel_range)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    note = range_note(pixels) if pixel_range is None and warn is not None else None
    if note is not None and warn is not None:
        warn(f"{path}: {note}")
    return image
