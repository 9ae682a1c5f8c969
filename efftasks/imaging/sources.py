"""Loading images from paths, bytes, arrays and PIL: the same code for exported files and checkpoints."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, decode_image, read_image, to_eight_bits
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["EXPECTED", "LoadedImage", "each_image", "find_images", "in_batches", "load_image"]

EXPECTED = (
    "a path, the bytes of an image file, an array uint8 (H, W, 3) BGR, (H, W) gray or (H, W, 4) BGRA, a PIL image, or "
    "several of them"
)
_TO_BGR = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}
_DEEP_MODES = ("I", "F")  # of PIL, with more than 8 bits per channel

Item = TypeVar("Item")


class LoadedImage(NamedTuple):
    """The pixels of an image, where they are from, and a file name for pictures of it."""

    source: str | NDArray[np.uint8]  # the path, or the pixels
    pixels: NDArray[np.uint8]  # (H, W, 3) BGR
    name: str  # without suffix


def find_images(source: str | Path) -> list[str]:
    """Sorted paths of the images of a file name, folder or glob pattern.

    Raises:
        UserError: there are none, or the path cannot be read.
    """
    path = Path(source)
    if not str(source):
        raise UserError("got an empty path, expected an image, a folder of images or a pattern")
    try:
        if path.is_dir():
            names = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        elif path.is_file():
            names = [str(path)]
        else:
            names = sorted(p for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
    except (OSError, ValueError) as error:  # no permission, or a null byte in the name
        raise UserError(f"{source}: cannot be read ({error}), expected an image, a folder or a pattern") from error
    if not names:
        raise UserError(
            f"{source}: no image found{_what_is_there(path)}, expected an image, a folder of images "
            f"({', '.join(IMAGE_SUFFIXES)}) or a pattern"
        )
    return names


def _what_is_there(path: Path) -> str:
    """Why a path has no images, for a message."""
    if not path.is_dir():
        return ", the pattern matches no file" if glob.has_magic(str(path)) else ", there is no such file or folder"
    inside = sorted(p for p in path.glob("*/**/*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return (
        f" in the folder itself (those deeper in it: '{path}/**/*{inside[0].suffix}')" if inside else " in the folder"
    )


def each_image(images: Any) -> Iterator[Any]:
    """Iterate over one image, or several in a list, tuple, generator, folder or glob pattern.

    Raises:
        UserError: ``images`` is none of these.
    """
    if isinstance(images, (str, Path)):
        yield from find_images(images)
    elif isinstance(images, (np.ndarray, bytes, bytearray, memoryview)) or _is_pil(images):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, Mapping):
        yield from images
    else:
        raise UserError(f"images: got {_type_name(images)}, expected {EXPECTED}")


def in_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last one may be shorter."""
    while batch := list(islice(items, size)):
        yield batch


def load_image(
    image: Any,
    index: int = 0,
    pixel_range: PixelRange | None = None,
    warn: Callable[[str], None] | None = None,
) -> LoadedImage:
    """Read, decode or convert one image.

    Args:
        image: a path; the bytes of an image file; an array uint8 (H, W, 3) BGR, (H, W) gray or (H, W, 4) BGRA; or a PIL
            image. Files and PIL images are rotated by their Exif orientation.
        index: position of the image in the input, for its name.
        pixel_range: of images with more than 8 bits, see :func:`efftasks.imaging.images.to_eight_bits`; with it, arrays
            may have other dtypes than uint8.
        warn: called with a sentence where a file seems to need a pixel range and none is given.

    Raises:
        UserError: ``image`` is none of these, or cannot be read.
    """
    if isinstance(image, (str, Path)):
        return LoadedImage(str(image), _read(image, pixel_range, warn), Path(image).stem)
    pixels = _pixels(image, f"images[{index}]", pixel_range)
    return LoadedImage(pixels, pixels, f"image_{index:06d}")


def _read(path: str | Path, pixel_range: PixelRange | None, warn: Callable[[str], None] | None) -> NDArray[np.uint8]:
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        raise UserError(f"{path}: got a video, expected an image; `stream` of Predictor reads videos frame by frame")
    if os.path.isdir(path):
        raise UserError(f"{path}: got a folder among images, expected image files; give the folder alone")
    return read_image(path, pixel_range, warn)


def _pixels(image: Any, place: str, pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        return _from_array(image, place, pixel_range)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(image), place, pixel_range)
    if _is_pil(image):
        return _from_pil(image, place)
    raise UserError(f"{place}: got {_type_name(image)}, expected {EXPECTED}")


def _from_bytes(data: bytes, place: str, pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    try:
        return decode_image(data, pixel_range)
    except BrokenImageError as error:
        raise UserError(
            f"{place}: got {len(data)} bytes that cannot be decoded, expected those of an image file: the image {error}"
        ) from error
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _from_array(image: NDArray[Any], place: str, pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    shape, depth = image.shape, image.shape[2] if image.ndim == 3 else 1
    has_valid_shape = image.ndim in (2, 3) and depth in (1, 3, 4) and 0 not in shape
    # (H, W, 4) may be an image of four columns with channels first.
    is_ambiguous = image.ndim == 3 and depth != 3 and shape[0] in (1, 3, 4)
    is_number = image.dtype.kind in "uif"
    if not has_valid_shape or is_ambiguous or not (image.dtype == np.uint8 or (is_number and pixel_range is not None)):
        kinds = "uint8" if pixel_range is None else "uint8, or other numbers in pixel_range,"
        more = "; the model states no pixel_range for other numbers" if is_number and image.dtype != np.uint8 else ""
        raise UserError(
            f"{place}: got an array {image.dtype} {shape}, expected {kinds} (H, W, 3) BGR, (H, W) gray or (H, W, 4) "
            f"BGRA{more if pixel_range is None else ''}"
        )
    pixels = to_eight_bits(image, pixel_range)
    return pixels if depth == 3 else np.asarray(cv2.cvtColor(pixels, _TO_BGR[depth]), np.uint8)


def _is_pil(image: Any) -> bool:
    """Whether it is an image of PIL. PIL is not imported here: the caller has done so if it is one."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def _from_pil(image: Any, place: str) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if image.mode.startswith(_DEEP_MODES):
        raise UserError(f"{place}: got a PIL image of mode {image.mode}, expected 8 bits a channel, such as RGB")
    try:
        upright = ImageOps.exif_transpose(image)
        rgb = np.asarray(upright.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads files lazily, and converts not all modes
        raise UserError(f"{place}: the PIL image cannot be decoded ({error})") from error
    if not rgb.size:
        raise UserError(f"{place}: got a PIL image of {image.width} x {image.height} pixels, expected at least 1 x 1")
    return np.ascontiguousarray(rgb[..., ::-1])


def _type_name(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
