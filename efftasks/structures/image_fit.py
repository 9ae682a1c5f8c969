"""How an image is resized for the network, as a transform describes itself. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PAD_VALUE", "ImageFit", "size_pair"]

PAD_VALUE = 114  # gray pixels outside of the image, where nothing else is stated


@dataclass(frozen=True)
class ImageFit:
    """How a transform resizes images.

    Args:
        mode: ``letterbox`` keeps the aspect ratio, ``stretch`` does not, ``crop`` cuts out the box of an object.
        size: (height, width) of the result in pixels; None if it varies, or is smaller than in testing on purpose.
        pad_value: pixel value outside of the image, 0..255; None if the transform does not pad.
        padding: factor by which a crop is larger than its box; None in other modes.
        interpolation: name of the interpolation; None if there is no choice.
    """

    mode: str
    size: tuple[int, int] | None
    pad_value: float | None = None
    padding: float | None = None
    interpolation: str | None = None


def size_pair(size: Any) -> tuple[int, int] | None:
    """A size in a config as two integers; None if it is not stated, or is no pair."""
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None
