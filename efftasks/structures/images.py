"""Images from files, the same way for training, testing and the runtimes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "UnreadableImage", "decode_image", "read_image"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # what counts as an image in a folder


class UnreadableImage(UserError):
    """An image file is missing or does not decode; ``path`` names it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{path}: the image is missing or cannot be decoded")
        self.path = str(path)

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str]]:
        return UnreadableImage, (self.path,)  # a loader's worker process hands its exceptions over


def decode_image(data: bytes) -> NDArray[np.uint8] | None:
    """The bytes of an image file -> uint8 (H, W, 3) BGR, turned as its Exif orientation says; None if it is none."""
    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # sizes beyond OpenCV's limits
        return None
    return None if image is None else np.asarray(image, dtype=np.uint8)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (H, W, 3) BGR, turned as its Exif orientation says.

    Raises:
        UnreadableImage: the file is missing, empty, truncated beyond decoding, or no image.
    """
    try:
        image = decode_image(Path(path).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: such as a zero byte in the name
        raise UnreadableImage(path) from error
    if image is None:
        raise UnreadableImage(path)
    return image
