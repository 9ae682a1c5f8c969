"""The checkpoint of a work dir to resume from."""

from __future__ import annotations

import zipfile
from pathlib import Path

from efftasks.checkpoints.files import read_checkpoint
from efftasks.structures.errors import UserError

__all__ = ["newest_intact_checkpoint"]


def newest_intact_checkpoint(folder: str | Path) -> tuple[Path | None, list[Path]]:
    """The newest readable checkpoint of a work dir, or None, and the newer ones that are broken."""
    folder = Path(folder)
    broken: list[Path] = []
    files = [path for path in folder.glob("*.pth") if path.stem.startswith(("epoch_", "iter_"))]
    for path in sorted(files, key=_step, reverse=True):
        if _is_intact(path):
            return path, broken
        broken.append(path)
    return None, broken


def _is_intact(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except UserError:
        return False
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None  # torch writes checksums but does not check them


def _step(path: Path) -> int:
    number = path.stem.rsplit("_", 1)[1]
    return int(number) if number.isdigit() else -1
