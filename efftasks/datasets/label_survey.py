"""Facts about label maps, read within a time limit and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.datasets.image_files import BrokenImageError, image_size
from efftasks.datasets.semantic_files import Pair, load_label
from efftasks.imaging.images import UnreadableImage

__all__ = ["LabelFacts", "Survey", "survey_labels"]

_VERSION = 1  # of what is remembered
_LEAST = 16  # label maps are read, whatever the time


@dataclass(frozen=True)
class LabelFacts:
    """What is known of an image and its label map.

    Attributes:
        label: the label map's path.
        numbers: those that occur; none where the file cannot be used.
        size: (height, width) of the label map; None where it cannot be read.
        image_size: (height, width) of the image as it is read; None where it cannot be read.
        wrong: why it cannot be used, as the predicate of a sentence; empty where it can.
        deep: whether it has 16 bits a pixel.
    """

    label: str
    numbers: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    wrong: str = ""
    deep: bool = False


@dataclass(frozen=True)
class Survey:
    """Facts of some label maps, evenly spread over ``total``."""

    facts: tuple[LabelFacts, ...]
    total: int

    @property
    def complete(self) -> bool:
        """Whether all are known."""
        return len(self.facts) == self.total

    def basis(self, number: int) -> str:
        """``number`` label maps, and of how many, where not all were read."""
        maps = f"{number} label map" + "s" * (number != 1)
        return maps if self.complete else f"{maps} (of {self.total}, the others are not read yet)"


def survey_labels(pairs: Sequence[Pair], place: str, seconds: float) -> Survey:
    """Read label maps, evenly spread, until the time is over; what is remembered of a file is not read again.

    Args:
        pairs: all of which have a label map.
        place: under which facts are remembered.
        seconds: for reading.
    """
    memory = _Memory(place)
    deadline = time.monotonic() + seconds
    threads = os.cpu_count() or 1
    facts: list[LabelFacts] = []
    order = _spread(len(pairs))
    with ThreadPoolExecutor(max_workers=threads) as pool:  # decoding is outside Python's lock
        while order and (memory.reads < _LEAST or time.monotonic() < deadline):
            part, order = order[: 4 * threads], order[4 * threads :]
            facts += pool.map(lambda index: memory.facts_of(pairs[index]), part)
    memory.save()
    return Survey(tuple(facts), len(pairs))


def _spread(count: int) -> list[int]:
    """0 to count - 1 in an order whose every beginning is spread evenly: by their bits from the last to the first."""
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))


class _Memory:
    """Facts by path, and time and size of the files, in the user's cache folder; without one nothing is remembered."""

    def __init__(self, place: str) -> None:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        digest = hashlib.sha256(os.path.abspath(place).encode()).hexdigest()[:16]
        self.path = Path(root, "efftasks", f"labels-{digest}.json")
        self.entries: dict[str, Any] = self._load()
        self.reads = 0

    def _load(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        usable = isinstance(data, dict) and data.get("version") == _VERSION and isinstance(data.get("entries"), dict)
        return data["entries"] if usable else {}

    def facts_of(self, pair: Pair) -> LabelFacts:
        """What is remembered of a pair, where its files are the same still, or else what is in them."""
        assert pair.label is not None
        stamp = [*_stamp(pair.label), *_stamp(pair.image)]
        name = os.path.abspath(pair.label)
        entry = self.entries.get(name)
        if entry is not None and entry["stamp"] == stamp:
            return replace(_from_json(entry["facts"]), label=str(pair.label))
        facts = _read(pair)
        self.entries[name] = dict(stamp=stamp, facts=asdict(facts))
        self.reads += 1
        return facts

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if not self.reads:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
                json.dump(dict(version=_VERSION, entries=self.entries), file)
            os.replace(file.name, self.path)
        except OSError:  # it is only slower without
            return


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, -1)
    return state.st_mtime_ns, state.st_size


def _from_json(data: dict[str, Any]) -> LabelFacts:
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return LabelFacts(**facts)


def _read(pair: Pair) -> LabelFacts:
    assert pair.label is not None
    path = str(pair.label)
    try:
        stored = load_label(path)
    except BrokenImageError as error:
        return LabelFacts(path, wrong=str(error))
    height, width = stored.array.shape[:2]
    wrong = next(stored.wrong_forms(), None)
    known: dict[str, Any] = dict(label=path, size=(height, width), image_size=_image_size(pair.image))
    if wrong is not None:
        return LabelFacts(**known, wrong=wrong.reason)
    numbers = tuple(int(number) for number in np.flatnonzero(np.bincount(stored.array.ravel())))
    return LabelFacts(**known, numbers=numbers, deep=stored.array.dtype != np.uint8)


def _image_size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except UnreadableImage:
        return None
