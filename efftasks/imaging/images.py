"""Reading image files: the same code for training, testing and the runtimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.file_faults import BrokenImageError, fault_of, is_truncated_jpeg, read_bytes
from efftasks.imaging.webp import is_webp, upright, webp_orientation
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

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of images in a folder
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZE_CHECK = "validateInputImageSize"  # OpenCV's function that refuses images of too many pixels
_BITS = (8, 10, 12, 14, 16)  # bit depths of cameras and scanners


class UnreadableImage(UserError):
    """An image file is missing or does not decode.

    Attributes:
        path: the file.
        reason: what is wrong with it, as the predicate of a sentence.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: the image {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return UnreadableImage, (self.path, self.reason)  # data loader workers pickle their exceptions


def decode_pixels(data: bytes) -> NDArray[Any]:
    """Decode the bytes of an image file to (H, W, 3) BGR in the bit depth of the file, rotated by its Exif orientation.

    Of an animation the first frame. An alpha channel is left out.

    Returns:
        uint8, or another dtype where the file has more than 8 bits per channel.

    Raises:
        BrokenImageError: it cannot be decoded, or is a truncated JPEG.
    """
    if not data or is_truncated_jpeg(data):
        raise BrokenImageError(fault_of(data))
    try:
        image = _decode(np.frombuffer(data, np.uint8), data)
    except cv2.error as error:
        if error.func != _SIZE_CHECK:
            raise BrokenImageError(f"cannot be decoded by OpenCV ({error.err})") from error
        raise BrokenImageError(
            "has more pixels than OpenCV decodes (2^30 in all, 2^20 on a side); make it smaller, or cut it into parts"
        ) from error
    if image is None:
        raise BrokenImageError(fault_of(data))
    return image


def _decode(buffer: NDArray[np.uint8], data: bytes) -> NDArray[Any] | None:
    if data.startswith(_TIFF):  # with IMREAD_COLOR OpenCV refuses one channel of 32 bits
        image = cv2.imdecode(buffer, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
        if image is not None and image.dtype != np.uint8:
            return _three_channels(image)
    if is_webp(data):  # OpenCV ignores its orientation
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return None if image is None else upright(np.asarray(image), webp_orientation(data))
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if image is None else np.asarray(image)


def _three_channels(image: NDArray[Any]) -> NDArray[Any]:
    channels = image.reshape(*image.shape[:2], -1)
    return np.ascontiguousarray(channels[..., :3] if channels.shape[2] >= 3 else np.repeat(channels[..., :1], 3, 2))


def decode_image(data: bytes, pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to uint8 (H, W, 3) BGR, rotated by its Exif orientation.

    Raises:
        BrokenImageError: as :func:`decode_pixels`.
        UserError: as :func:`to_eight_bits`.
    """
    return to_eight_bits(decode_pixels(data), pixel_range)


def to_eight_bits(pixels: NDArray[Any], pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Convert an image of any bit depth to uint8; images of 8 bits are returned as they are.

    Args:
        pixels: of any shape.
        pixel_range: the values that become 0 and 255; values between are rounded, values outside clipped. None
            divides 16 bits by 256.

    Raises:
        UserError: the pixels are floats or signed integers, and no range is given.
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
    rounded = np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)
    return np.asarray(rounded)


def seeming_range(pixels: NDArray[Any]) -> PixelRange | None:
    """Guess the pixel range of an image; None where it needs none, or has only zeros.

    Images of 16 bits with values from 2**14 on are assumed to use all 16.
    """
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if pixels.dtype == np.uint8 or not values.size or not values.any():
        return None
    lowest, highest = values.min().item(), values.max().item()
    if pixels.dtype.kind == "f" and lowest >= 0 and highest <= 255:
        return (0, 1) if highest <= 1 else (0, 255)
    if lowest >= 0:
        maximum = next((2**bits - 1 for bits in _BITS if highest < 2**bits), None)
        if maximum is not None and pixels.dtype.kind != "f":
            return None if pixels.dtype == np.uint16 and maximum == 2**16 - 1 else (0, maximum)
    return math.floor(lowest), max(math.floor(lowest) + 1, math.ceil(highest))


def range_note(pixels: NDArray[Any]) -> str | None:
    """A warning about an image that needs a pixel range and is read without one; None where it needs none."""
    span = seeming_range(pixels)
    if span is None:
        return None
    effect = f"; divided by 256 they are at most {pixels.max() >> 8} of 255" if pixels.dtype == np.uint16 else ""
    return f"{_describe(pixels)}{effect}; state what is black and white, such as pixel_range={span[0]},{span[1]}"


def _describe(pixels: NDArray[Any]) -> str:
    kind = {"f": "bits of float", "i": "bits with sign"}.get(pixels.dtype.kind, "bits")
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    extremes = f"{values.min():.6g}..{values.max():.6g}" if values.size else "nan"
    return f"values {extremes} in {pixels.dtype.itemsize * 8} {kind}"


def read_pixels(path: str | Path) -> NDArray[Any]:
    """Read an image file as :func:`decode_pixels` does.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, too large, or no image.
    """
    try:
        return decode_pixels(read_bytes(path))
    except BrokenImageError as error:
        raise UnreadableImage(path, str(error)) from error


def read_image(
    path: str | Path, pixel_range: PixelRange | None = None, warn: Callable[[str], None] | None = None
) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) BGR, rotated by its Exif orientation.

    Args:
        path: the file.
        pixel_range: see :func:`to_eight_bits`; images of 8 bits need none.
        warn: called with a sentence where an image of 16 bits seems to need a range and none is given.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, too large, or no image.
        UserError: its pixels are floats or signed integers, and no range is given.
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
