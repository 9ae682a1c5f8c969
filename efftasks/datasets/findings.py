"""What a check of data finds before the first step of a training or a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        level: ``error`` stops the command before its first step, ``warning`` is logged once.
        message: one sentence that names the file, the place in it, and what to do.
    """

    level: Literal["error", "warning"]
    message: str
