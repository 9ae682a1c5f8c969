"""Sizes and numbers of label maps, read within a time limit and cached."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.datasets.check_cache import digest, file_stamp, load_json, save_json
from efftasks.datasets.image_files import image_size
from efftasks.datasets.semantic_files import Pair, load_label
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.images import UnreadableImage

__all__ = ["LabelMapInfo", "LabelSurvey", "survey_labels"]

_VERSION = 2  # of the cache file
_MIN_READS = 16  # label maps that are read even if the time is over


@dataclass(frozen=True)
class LabelMapInfo:
    """Sizes and numbers of a label map and its image.

    Attributes:
        label: path of the label map.
        numbers: the numbers that occur; empty if the file cannot be used.
        size: (height, width) of the label map; None if it cannot be read.
        image_size: (height, width) of the image as it is read; None if it cannot be read.
        problem: why the label map cannot be used, as the predicate of a sentence; empty if it can.
        sixteen_bit: whether it has 16 bits per pixel.
    """

    label: str
    numbers: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    problem: str = ""
    sixteen_bit: bool = False


@dataclass(frozen=True)
class LabelSurvey:
    """The label maps read so far, evenly spread over ``total``."""

    maps: tuple[LabelMapInfo, ...]
    total: int

    @property
    def complete(self) -> bool:
        """Whether all label maps are read."""
        return len(self.maps) == self.total

    def basis(self, number: int) -> str:
        """``number`` label maps as a phrase, with the total if not all are read."""
        maps = f"{number} label map" + "s" * (number != 1)
        return maps if self.complete else f"{maps} (of {self.total}, the others are not read yet)"


def survey_labels(pairs: Sequence[Pair], place: str, seconds: float) -> LabelSurvey:
    """Read label maps, evenly spread, until the time is over; unchanged files come from the cache.

    Args:
        pairs: images and label maps; each has a label map.
        place: the folder of the data set, which names the cache file.
        seconds: time for reading.
    """
    cache = _Cache(place)
    deadline = time.monotonic() + seconds
    threads = os.cpu_count() or 1
    maps: list[LabelMapInfo] = []
    order = _spread(len(pairs))
    with ThreadPoolExecutor(max_workers=threads) as pool:  # decoding releases the GIL
        while order and (cache.reads < _MIN_READS or time.monotonic() < deadline):
            part, order = order[: 4 * threads], order[4 * threads :]
            maps += pool.map(lambda index: cache.read(pairs[index]), part)
    cache.save()
    return LabelSurvey(tuple(maps), len(pairs))


def _spread(count: int) -> list[int]:
    """0 to count - 1 ordered by their reversed bits, so that any first part of the order is evenly spread."""
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))


class _Cache:
    """Label map infos by path, valid while the time and size of label map and image stay the same."""

    def __init__(self, place: str) -> None:
        self.name = f"labels-{digest(os.path.abspath(place), 16)}.json"
        data = load_json(self.name)
        valid = isinstance(data, dict) and data.get("version") == _VERSION and isinstance(data.get("entries"), dict)
        self.entries: dict[str, Any] = data["entries"] if valid else {}
        self.reads = 0

    def read(self, pair: Pair) -> LabelMapInfo:
        """The info of a pair, from the cache or else from its files."""
        assert pair.label is not None
        stamp = [*_stamp(pair.label), *_stamp(pair.image)]
        path = os.path.abspath(pair.label)
        entry = self.entries.get(path)
        if entry is not None and entry["stamp"] == stamp:
            return replace(_from_json(entry["info"]), label=str(pair.label))
        info = _read(pair)
        self.entries[path] = dict(stamp=stamp, info=asdict(info))
        self.reads += 1
        return info

    def save(self) -> None:
        """Write the cache file if there is anything new."""
        if self.reads:
            save_json(self.name, dict(version=_VERSION, entries=self.entries))


def _stamp(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError:
        return [0, -1]


def _from_json(data: dict[str, Any]) -> LabelMapInfo:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return LabelMapInfo(**fields)


def _read(pair: Pair) -> LabelMapInfo:
    assert pair.label is not None
    path = str(pair.label)
    try:
        stored = load_label(path)
    except BrokenImageError as error:
        return LabelMapInfo(path, problem=str(error))
    height, width = stored.array.shape[:2]
    info = LabelMapInfo(path, size=(height, width), image_size=_image_size(pair.image))
    problem = next(stored.format_problems(), None)
    if problem is not None:
        return replace(info, problem=problem.reason)
    numbers = tuple(int(number) for number in np.flatnonzero(np.bincount(stored.array.ravel())))
    return replace(info, numbers=numbers, sixteen_bit=stored.array.dtype != np.uint8)


def _image_size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except UnreadableImage:
        return None
