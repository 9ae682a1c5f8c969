"""Check whether images of a data set have more than 8 bits and need ``pixel_range``, on a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets.findings import Finding
from efftasks.imaging.images import UnreadableImage, range_note, read_pixels
from efftasks.structures.pixel_range import PixelRange

__all__ = ["depth_note", "quick_check_range"]

_SUFFIXES = (".png", ".tif", ".tiff")  # what may have more than 8 bits
_SAMPLES = 8


def quick_check_range(paths: Sequence[str | Path], pixel_range: PixelRange | None) -> list[Finding]:
    """An error if images have float pixels, a warning if images of 16 bits would be read nearly black.

    Args:
        paths: paths of all images.
        pixel_range: that of the config; if it is stated, nothing is checked.
    """
    if pixel_range is not None:
        return []
    kind, note = _look(paths)
    if note is None:
        return []
    return [Finding("warning" if kind == "u" else "error", note)]


def depth_note(paths: Sequence[str | Path]) -> str | None:
    """A note for a report if some images need ``pixel_range``, else None."""
    return _look(paths)[1]


def _look(paths: Sequence[str | Path]) -> tuple[str, str | None]:
    """numpy's kind of the pixels' dtype, and a note; an empty kind and None without anything to note."""
    deep = [Path(path) for path in paths if Path(path).suffix.lower() in _SUFFIXES]
    samples = np.unique(np.linspace(0, len(deep) - 1, _SAMPLES).astype(int)) if deep else ()
    extremes: dict[np.dtype[Any], list[NDArray[Any]]] = {}
    first: dict[np.dtype[Any], Path] = {}
    for index in samples:
        try:
            pixels = read_pixels(deep[index])
        except UnreadableImage:
            continue
        values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        if pixels.dtype != np.uint8 and values.size:
            first.setdefault(pixels.dtype, deep[index])
            extremes.setdefault(pixels.dtype, []).append(np.array([values.min(), values.max()]))
    for dtype, path in first.items():
        note = range_note(np.concatenate(extremes[dtype]))
        if note is not None:
            others = f" and others of {len(samples)} looked at" if len(extremes[dtype]) > 1 else ""
            return dtype.kind, f"{path}{others}: {note}"
    return "", None
