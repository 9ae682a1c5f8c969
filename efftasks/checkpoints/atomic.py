"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from efftasks.structures.errors import WorkError

__all__ = ["whole_or_nothing"]


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """Write a file atomically: the block writes a draft beside it, which is then synced to disk and renamed.

    Raises:
        WorkError: it could not be written; the old file is unchanged, and the draft is removed.
    """
    draft = target.with_name(target.name + ".tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        raise WorkError(f"{target} could not be saved ({error}); earlier checkpoints are intact") from error
    finally:
        draft.unlink(missing_ok=True)
