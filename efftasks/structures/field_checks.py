"""Checks of single fields of what is read from JSON: a UserError names the field. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["check_choice", "check_integer", "check_number", "check_text", "check_texts", "is_number"]


def is_number(value: object) -> bool:
    """Whether this is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """One of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise UserError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}")


def check_integer(name: str, value: Any, least: int = 1) -> None:
    """An integer from ``least``."""
    if type(value) is not int or value < least:
        raise UserError(f"{name}: got {value!r}, expected an integer from {least}")


def check_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """A number in [low, high]."""
    if not is_number(value) or not low <= value <= high:
        limits = f"from {low:g}" if high == math.inf else f"in {low:g} to {high:g}"
        raise UserError(f"{name}: got {value!r}, expected a number {limits}")


def check_text(name: str, value: Any) -> None:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise UserError(f"{name}: got {value!r}, expected a text")


def check_texts(name: str, value: Any) -> None:
    """A list of names."""
    if not isinstance(value, (tuple, list)) or not all(isinstance(entry, str) for entry in value):
        raise UserError(f"{name}: got {value!r}, expected a list of names")
