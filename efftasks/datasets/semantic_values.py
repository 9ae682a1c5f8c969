"""The number that each class has in label maps, where it is not the index of the class.

Binary masks are often drawn as 0 and 255, others as 0, 128, 255, or from 1 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError

__all__ = ["IGNORE", "LabelValues", "label_values", "parse_values", "suggest_values"]

IGNORE = 255  # the number of pixels that belong to no class, where nothing else is stated, and as a target always


@dataclass(frozen=True)
class LabelValues:
    """Which number of a label map is which class.

    Attributes:
        classes: names, in the order of their indices.
        values: the number of each class, 0 to 255.
        ignored: numbers of pixels that belong to no class.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]

    @property
    def stated(self) -> bool:
        """Whether the numbers are others than the indices."""
        return self.values != tuple(range(len(self.classes)))

    def strange(self, numbers: Iterable[int]) -> list[int]:
        """Those that are neither a class nor ignored."""
        return sorted(set(numbers).difference(self.values, self.ignored))

    def missing(self, numbers: Iterable[int]) -> list[str]:
        """Names of the classes whose number is not among these."""
        present = set(numbers)
        return [name for name, value in zip(self.classes, self.values) if value not in present]

    def table(self) -> NDArray[np.int16]:
        """Index of the class of each number 0 to 255, 255 for ignored ones, -1 for strange ones: int16 (256,)."""
        table = np.full(256, -1, np.int16)
        table[list(self.ignored)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        return table

    def to_indices(self, labels: NDArray[np.uint8], path: str | Path) -> NDArray[np.uint8]:
        """A label map (H, W) with the index of a class in each pixel, or 255.

        Raises:
            UserError: it has numbers that are neither a class nor ignored; ``path`` is for the message.
        """
        indices = self.table()[labels]
        if indices.min(initial=0) < 0:
            first = int(labels[indices < 0][0])
            raise UserError(
                f"{path}: the label map has the number {first}, expected {self.expected()}; where classes have other "
                "numbers, label_values states them"
            )
        return indices.astype(np.uint8)

    def expected(self) -> str:
        """The numbers that may occur, for a message."""
        if self.stated:
            known = ", ".join(map(str, self.values))
        else:
            known = f"0 to {len(self.values) - 1}"
        return known + "".join(f", or {number}" for number in self.ignored)


def label_values(
    classes: Sequence[str], values: Sequence[int] | None = None, ignore: int | None = None, origin: str = ""
) -> LabelValues:
    """Check what is stated about the numbers in label maps.

    Args:
        classes: names, in the order of their indices.
        values: the number of each class; None for its index.
        ignore: the number of pixels that belong to no class; None for 255, where no class has that.
            255 is ignored beside another number, where no class has it.
        origin: the file, for the message.

    Raises:
        UserError: they are not one number of 0 to 255 a class, or a class has the number to ignore.
    """
    place = f"{origin}: " if origin else ""
    known = tuple(range(len(classes))) if values is None else tuple(values) if _is_list(values) else ()
    whole = all(type(value) is int and 0 <= value <= 255 for value in known)
    if len(known) != len(classes) or not whole or len(set(known)) != len(known):
        raise UserError(
            f"{place}label_values: got {values!r}, expected {len(classes)} different integers of 0 to 255, one for "
            f"each of the classes {tuple(classes)}"
        )
    if ignore is not None and (type(ignore) is not int or not 0 <= ignore <= 255):
        raise UserError(f"{place}ignore: got {ignore!r}, expected 0 to 255")
    if ignore in known:
        raise UserError(f"{place}ignore: got {ignore}, which is class {classes[known.index(ignore)]!r}")
    ignored = {IGNORE if ignore is None else ignore, IGNORE} - set(known)
    return LabelValues(tuple(classes), known, tuple(sorted(ignored)))


def _is_list(values: object) -> bool:
    return isinstance(values, (list, tuple))


def parse_values(text: str | None) -> tuple[int, ...] | None:
    """``0,255`` -> ``(0, 255)``, as a command takes them.

    Raises:
        UserError: not integers with commas.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--values: got {text!r}, expected integers with commas, such as 0,255") from error


def suggest_values(numbers: Iterable[int], known: LabelValues, ignore: int | None) -> str | None:
    """What to state, where the numbers of all label maps look as if classes had other numbers than their indices.

    Args:
        numbers: all that occur.
        known: what is stated so far.
        ignore: the number to ignore, where it is stated; 255 is a likely number of a class only where it is not.

    Returns:
        A clause for a message; None where nothing is likely.
    """
    seen, count = sorted(set(numbers)), len(known.classes)
    if known.stated or not seen:
        return None
    highest = max((number for number in seen if number != IGNORE), default=0)
    if ignore is None and seen in ([IGNORE], [0, IGNORE]) and count == 2:
        return f"if 255 is {known.classes[1]!r}, state {_options((0, 255))}; if no class, state ignore=255"
    if ignore is None and seen in ([IGNORE], [0, IGNORE]) and count == 1:
        named = f"classes=background,{known.classes[0]}"
        return f"a network needs two classes: name what 0 is, such as {named}, and state {_options((0, 255))}"
    if not known.strange(seen):
        return None
    if highest == count and seen[0] == 0:
        several = _options(range(1, count + 1), 0)
        return f"if 0 is no class, state {several}; if it is one, name it first in the classes"
    for likely in (seen, [number for number in seen if number != IGNORE]):
        if len(likely) == count and likely[-1] <= 255:
            return f"if these are the classes in their order, state {_options(likely)}"
    return None


def _options(values: Sequence[int], ignore: int | None = None) -> str:
    """As a config takes them, and as the check does."""
    numbers = ",".join(map(str, values))
    config, check = f"label_values={numbers}", f"--values {numbers}"
    if ignore is not None:
        config, check = f"{config} ignore={ignore}", f"{check} --ignore {ignore}"
    return f"{config} (`efftasks dataset check` takes {check})"
