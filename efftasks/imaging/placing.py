"""Putting image files into the folder of a data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["link_or_copy"]


def link_or_copy(source: Path, target: Path) -> bool:
    """Make a hard link, which takes no space; a copy where the file system has none.

    Args:
        source: the file.
        target: its new name, which is free; its folder exists.

    Returns:
        Whether it is a link.

    Raises:
        OSError: the file cannot be read, or not be written.
    """
    try:
        os.link(source.resolve(), target)
        return True
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        return False
