"""The values of pixels that stand for black and white in pictures of more than 8 bits. Standard library only."""

from __future__ import annotations

from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import is_number

__all__ = ["PixelRange", "checked_range"]

PixelRange = tuple[float, float]


def checked_range(value: Any, name: str = "pixel_range") -> PixelRange | None:
    """Two numbers (low, high), or None.

    Raises:
        UserError: it is something else; ``name`` is for the message.
    """
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(map(is_number, value)):
        raise UserError(f"{name}: got {value!r}, expected two numbers (low, high), or None")
    low, high = value
    if not low < high:
        raise UserError(f"{name}: got {value!r}, expected low < high")
    return low, high
