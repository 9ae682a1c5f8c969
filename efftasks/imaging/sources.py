"""What people hold as an image, as pixels: the same way for exported files and for checkpoints."""

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

from efftasks.imaging.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, decode_image, read_image, to_eight_bits
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["EXPECTED", "LoadedImage", "each_image", "find_images", "in_batches", "load_image"]

EXPECTED = (
    "a path, the bytes of an image file, an array uint8 (H, W, 3) BGR, (H, W) grey or (H, W, 4) BGRA, a PIL image, or "
    "several of them"
)
_COLOURS = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}
_DEEP_MODES = ("I", "F")  # of PIL: more than 8 bits a channel

Item = TypeVar("Item")


class LoadedImage(NamedTuple):
    """An image as a prediction names it, its pixels, and what a picture of it is called."""

    source: str | NDArray[np.uint8]  # the path, or the pixels
    pixels: NDArray[np.uint8]  # (H, W, 3) BGR
    name: str


def find_images(source: str | Path) -> list[str]:
    """Paths of the images that a file, folder or glob names, sorted.

    Raises:
        UserError: there are none, or it is a video.
    """
    path = Path(source)
    try:
        if path.is_dir():
            names = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            names = [str(path)]
        else:
            names = sorted(p for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
    except (OSError, ValueError) as error:  # no permission; a zero byte in the name
        raise UserError(f"{source}: cannot be read ({error}), expected an image, a folder or a pattern") from error
    if not names:
        raise UserError(f"{source}: no image found{_deeper(path)}, expected an image, a folder of images or a pattern")
    return names


def _deeper(folder: Path) -> str:
    """Where a folder has images in the folders inside of it: how to name them."""
    inside = sorted(p for p in folder.glob("*/**/*") if p.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
    return f" in the folder itself (those deeper in it: '{folder}/**/*{inside[0].suffix}')" if inside else ""


def each_image(images: Any) -> Iterator[Any]:
    """One image after the other of what was given: an image, or several in a list, tuple, generator, folder or glob.

    Raises:
        UserError: it is none of that.
    """
    if isinstance(images, (str, Path)):
        yield from find_images(images)
    elif isinstance(images, (np.ndarray, bytes, bytearray, memoryview)) or _is_pil(images):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, Mapping):
        yield from images
    else:
        raise UserError(f"images: got {_kind(images)}, expected {EXPECTED}")


def in_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one perhaps shorter."""
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
        image: a path; the bytes of an image file; an array uint8 (H, W, 3) BGR, (H, W) grey or (H, W, 4) BGRA; or a PIL
            image, turned as its Exif orientation says, as files are.
        index: of the image among those given, for its name.
        pixel_range: of images with more than 8 bits, see :func:`efftasks.imaging.images.to_eight_bits`; arrays may
            have other numbers then, too.
        warn: gets a sentence where a file seems to need a range and none is stated.

    Raises:
        UserError: it is none of that, or cannot be read.
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
        return _of_array(image, place, pixel_range)
    if isinstance(image, (bytes, bytearray, memoryview)):
        pixels = decode_image(bytes(image), pixel_range)
        if pixels is None:
            raise UserError(f"{place}: got {len(image)} bytes that cannot be decoded, expected those of an image file")
        return pixels
    if _is_pil(image):
        return _of_pil(image, place)
    raise UserError(f"{place}: got {_kind(image)}, expected {EXPECTED}")


def _of_array(image: NDArray[Any], place: str, pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    shape, depth = image.shape, image.shape[2] if image.ndim == 3 else 1
    is_known = image.ndim in (2, 3) and depth in (1, 3, 4) and 0 not in shape
    # Four channels last, or an image of four columns with its channels first.
    is_ambiguous = image.ndim == 3 and depth != 3 and shape[0] in (1, 3, 4)
    is_number = image.dtype.kind in "uif"
    if not is_known or is_ambiguous or not (image.dtype == np.uint8 or (is_number and pixel_range is not None)):
        kinds = "uint8" if pixel_range is None else "uint8, or other numbers in pixel_range,"
        more = "; the model states no pixel_range for other numbers" if is_number and image.dtype != np.uint8 else ""
        raise UserError(
            f"{place}: got an array {image.dtype} {shape}, expected {kinds} (H, W, 3) BGR, (H, W) grey or (H, W, 4) "
            f"BGRA{more if pixel_range is None else ''}"
        )
    pixels = to_eight_bits(image, pixel_range)
    return pixels if depth == 3 else np.asarray(cv2.cvtColor(pixels, _COLOURS[depth]), np.uint8)


def _is_pil(image: Any) -> bool:
    """Whether it is an image of PIL, which is not imported: whoever has such an image has done so."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def _of_pil(image: Any, place: str) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if image.mode.startswith(_DEEP_MODES):
        raise UserError(f"{place}: got a PIL image of mode {image.mode}, expected 8 bits a channel, such as RGB")
    try:
        upright = ImageOps.exif_transpose(image)
        colours = np.asarray(upright.convert("RGB"), np.uint8)
    except OSError as error:  # a file that PIL has opened and not yet read
        raise UserError(f"{place}: the PIL image cannot be decoded ({error})") from error
    return np.ascontiguousarray(colours[..., ::-1])


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
