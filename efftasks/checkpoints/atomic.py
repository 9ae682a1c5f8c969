"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from efftasks.structures.errors import WorkError

__all__ = ["whole_or_nothing"]


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """A draft beside a file, to be written in the block; then it reaches the disk and takes the file's place.

    Raises:
        WorkError: it could not be written; what was there before is untouched, and the draft is gone.
    """
    draft = target.with_name(target.name + ".tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        raise WorkError(f"{target} could not be saved ({error}); earlier checkpoints are intact") from error
    finally:
        draft.unlink(missing_ok=True)
