"""Whether pictures of a data set have more than 8 bits and need ``pixel_range``: looked at on a spread handful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets.findings import Finding
from efftasks.imaging.images import UnreadableImage, range_note, read_pixels
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = ["depth_note", "quick_check_range", "range_of"]

_SUFFIXES = (".png", ".tif", ".tiff")  # what may have more than 8 bits
_LOOKED_AT = 8


def quick_check_range(paths: Sequence[str | Path], pixel_range: PixelRange | None) -> list[Finding]:
    """An error where floats would stop the first step, a warning where 16 bits would be read nearly black.

    Args:
        paths: of all images.
        pixel_range: what is stated; then there is nothing to find.
    """
    if pixel_range is not None:
        return []
    kind, note = _look(paths)
    if note is None:
        return []
    return [Finding("warning" if kind == "u" else "error", note)]


def depth_note(paths: Sequence[str | Path]) -> str | None:
    """A sentence for a report, where some pictures need ``pixel_range``; None where none does."""
    return _look(paths)[1]


def _look(paths: Sequence[str | Path]) -> tuple[str, str | None]:
    """numpy's kind of the numbers, and what to say of them."""
    deep = [Path(path) for path in paths if Path(path).suffix.lower() in _SUFFIXES]
    chosen = np.unique(np.linspace(0, len(deep) - 1, _LOOKED_AT).astype(int)) if deep else ()
    ends: dict[np.dtype[Any], list[NDArray[Any]]] = {}
    first: dict[np.dtype[Any], Path] = {}
    for index in chosen:
        try:
            pixels = read_pixels(deep[index])
        except UnreadableImage:
            continue
        values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        if pixels.dtype != np.uint8 and values.size:
            first.setdefault(pixels.dtype, deep[index])
            ends.setdefault(pixels.dtype, []).append(np.array([values.min(), values.max()]))
    for kind, path in first.items():
        note = range_note(np.concatenate(ends[kind]))
        if note is not None:
            several = f" and others of {len(chosen)} looked at" if len(ends[kind]) > 1 else ""
            return kind.kind, f"{path}{several}: {note}"
    return "", None


def range_of(dataset: Mapping[str, Any]) -> PixelRange | None:
    """The range that the LoadImage of a data set's config states."""
    steps = [step for step in dataset.get("pipeline") or () if isinstance(step, Mapping)]
    loaders = [step for step in steps if str(step.get("type")).rpartition(".")[2] == "LoadImage"]
    return checked_range(loaders[0].get("pixel_range")) if loaders else None
