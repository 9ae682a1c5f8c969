"""The numbers of the classes in label maps, which may differ from the indices of the classes.

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

IGNORE = 255  # marks pixels without a class: in label maps by default, in training targets always


@dataclass(frozen=True)
class LabelValues:
    """Maps the numbers of label maps to classes.

    Attributes:
        classes: names, in the order of their indices.
        values: the number of each class, 0 to 255.
        ignored: numbers of pixels that belong to no class.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]

    @property
    def custom(self) -> bool:
        """Whether the numbers differ from the indices."""
        return self.values != tuple(range(len(self.classes)))

    def unexpected(self, numbers: Iterable[int]) -> list[int]:
        """The numbers that are neither a class nor ignored, sorted."""
        return sorted(set(numbers).difference(self.values, self.ignored))

    def missing(self, numbers: Iterable[int]) -> list[str]:
        """Names of the classes whose number does not occur."""
        present = set(numbers)
        return [name for name, value in zip(self.classes, self.values) if value not in present]

    def table(self) -> NDArray[np.int16]:
        """int16 (256,): the class index of each number, 255 if it is ignored, -1 if it is unexpected."""
        table = np.full(256, -1, np.int16)
        table[list(self.ignored)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        return table

    def to_indices(self, labels: NDArray[np.uint8], path: str | Path) -> NDArray[np.uint8]:
        """Replace the numbers of a label map (H, W) by class indices, ignored ones by 255.

        Raises:
            UserError: a number is neither a class nor ignored; ``path`` is for the message.
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
        """The allowed numbers, for messages."""
        if self.custom:
            allowed = ", ".join(map(str, self.values))
        else:
            allowed = f"0 to {len(self.values) - 1}"
        return allowed + "".join(f", or {number}" for number in self.ignored)


def label_values(
    classes: Sequence[str], values: Sequence[int] | None = None, ignore: int | None = None, origin: str = ""
) -> LabelValues:
    """Check the numbers of classes in label maps.

    Args:
        classes: names, in the order of their indices.
        values: the number of each class; None takes its index.
        ignore: the number of pixels without a class. 255 is ignored too, unless it is a class.
        origin: the file that states them, for messages.

    Raises:
        UserError: the values are not one number of 0 to 255 for each class, or ``ignore`` is the number of a class.
    """
    prefix = f"{origin}: " if origin else ""
    numbers = tuple(range(len(classes))) if values is None else tuple(values) if _is_list(values) else ()
    integers = all(type(value) is int and 0 <= value <= 255 for value in numbers)
    if len(numbers) != len(classes) or not integers or len(set(numbers)) != len(numbers):
        raise UserError(
            f"{prefix}label_values: got {values!r}, expected {len(classes)} different integers of 0 to 255, one for "
            f"each of the classes {tuple(classes)}"
        )
    if ignore is not None and (type(ignore) is not int or not 0 <= ignore <= 255):
        raise UserError(f"{prefix}ignore: got {ignore!r}, expected 0 to 255")
    if ignore in numbers:
        raise UserError(f"{prefix}ignore: got {ignore}, which is class {classes[numbers.index(ignore)]!r}")
    ignored = {IGNORE if ignore is None else ignore, IGNORE} - set(numbers)
    return LabelValues(tuple(classes), numbers, tuple(sorted(ignored)))


def _is_list(values: object) -> bool:
    return isinstance(values, (list, tuple))


def parse_values(text: str | None) -> tuple[int, ...] | None:
    """Parse a command's option: ``"0,255"`` -> ``(0, 255)``; None stays None.

    Raises:
        UserError: the text is not integers with commas.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--values: got {text!r}, expected integers with commas, such as 0,255") from error


def suggest_values(numbers: Iterable[int], value_map: LabelValues, ignore: int | None) -> str | None:
    """Suggest ``label_values`` if the numbers in the label maps look as if they were not the indices of classes.

    Args:
        numbers: all numbers that occur.
        value_map: the current numbers of the classes.
        ignore: the stated number of pixels without a class, or None; only then 255 may be the number of a class.

    Returns:
        A clause for a message; None without a plausible suggestion.
    """
    present, count = sorted(set(numbers)), len(value_map.classes)
    if value_map.custom or not present:
        return None
    highest = max((number for number in present if number != IGNORE), default=0)
    if ignore is None and present in ([IGNORE], [0, IGNORE]) and count == 2:
        return f"if 255 is {value_map.classes[1]!r}, state {_option_texts((0, 255))}; if no class, state ignore=255"
    if ignore is None and present in ([IGNORE], [0, IGNORE]) and count == 1:
        named = f"classes=background,{value_map.classes[0]}"
        return f"a network needs two classes: name what 0 is, such as {named}, and state {_option_texts((0, 255))}"
    if not value_map.unexpected(present):
        return None
    if highest == count and present[0] == 0:
        options = _option_texts(range(1, count + 1), 0)
        return f"if 0 is no class, state {options}; if it is one, name it first in the classes"
    for likely in (present, [number for number in present if number != IGNORE]):
        if len(likely) == count and likely[-1] <= 255:
            return f"if these are the classes in their order, state {_option_texts(likely)}"
    return None


def _option_texts(values: Sequence[int], ignore: int | None = None) -> str:
    """The options that state the values, in a config and for the check."""
    numbers = ",".join(map(str, values))
    config, check = f"label_values={numbers}", f"--values {numbers}"
    if ignore is not None:
        config, check = f"{config} ignore={ignore}", f"{check} --ignore {ignore}"
    return f"{config} (`efftasks dataset check` takes {check})"
