"""Findings of the checks of data before training and testing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """A problem with the data.

    Args:
        level: ``error`` stops the command before its first step, ``warning`` is logged once.
        message: one sentence with the file, the place in it, and the remedy.
    """

    level: Literal["error", "warning"]
    message: str
