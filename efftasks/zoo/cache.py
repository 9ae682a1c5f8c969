"""Where fetched and converted checkpoints are kept, and the digests of their authors' files.

Below the folder::

    zoo/dfine-n-coco/dfine-n-coco.pth    converted
    zoo/dfine-n-coco/model.onnx, .json   exported and verified, once it was needed
    zoo/dfine-n-coco.sha256              digest of the authors' file as it was first fetched; stays when the rest goes
    zoo/dfine-n-coco.lock                held by the process that changes the folder
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile
from efftasks.zoo.catalog import Entry
from efftasks.zoo.locking import locked

__all__ = [
    "artifact_file",
    "bytes_of",
    "cache_folder",
    "check_digest",
    "checkpoint_file",
    "folder_of",
    "one_at_a_time",
    "record_digest",
    "remove",
]

_CACHE = "EFFTASKS_CACHE"


def cache_folder() -> Path:
    """The folder of all names: below ``EFFTASKS_CACHE``, else the user's cache."""
    stated = os.environ.get(_CACHE)
    root = Path(stated) if stated else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "efftasks")
    return root / "zoo"


def folder_of(entry: Entry) -> Path:
    """The folder of a name, which may not exist."""
    return cache_folder() / entry.name


def checkpoint_file(entry: Entry) -> Path:
    """The checkpoint as this package reads it, which may not exist."""
    return folder_of(entry) / entry.converted_file


def artifact_file(entry: Entry) -> Path:
    """The exported file, which may not exist."""
    return folder_of(entry) / "model.onnx"


@contextmanager
def one_at_a_time(entry: Entry) -> Iterator[Path]:
    """The folder of a name, made, while no other process changes it.

    Raises:
        WorkError: it cannot be written.
    """
    folder = folder_of(entry)
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder.with_suffix(".lock")))
            folder.mkdir(exist_ok=True)  # now: who had the lock before may have removed it
        except OSError as error:
            raise WorkError(
                f"{error.filename}: cannot be written ({error.strerror}), expected a folder for the cache: set {_CACHE}"
            ) from error
        yield folder


def check_digest(entry: Entry, file: Path, new: bool = False) -> str:
    """Hold a fetched file against the digest that its authors state, or that it had when it was first fetched.

    Args:
        entry: the name.
        file: of its authors, as it was fetched.
        new: do not ask what digest it had when it was first fetched.

    Returns:
        Its digest.

    Raises:
        WorkError: it has another digest; the file is removed.
    """
    digest = ArtifactFile.of(file).sha256
    record = _record(entry)
    first = record.read_text(encoding="utf-8").partition(" ")[0] if record.is_file() and not new else ""
    expected = entry.sha256 or first
    if not digest.startswith(expected):
        file.unlink()
        origin = "its authors state" if entry.sha256 else f"{record} has from an earlier fetch"
        again = "" if entry.sha256 else f"; if its authors replaced it: efftasks zoo get {entry.name} --new-digest"
        raise WorkError(
            f"{entry.name}: the fetched file has the SHA-256 {digest[:16]}..., expected {expected[:16]}... as "
            f"{origin}, so it was removed{again}"
        )
    return digest


def record_digest(entry: Entry, digest: str) -> None:
    """Keep the digest of a fetched file for later fetches."""
    _record(entry).write_text(f"{digest}  {entry.file}\n", encoding="utf-8")


def bytes_of(entry: Entry) -> int:
    """How much of a name is here."""
    return sum(file.stat().st_size for file in folder_of(entry).rglob("*") if file.is_file())


def remove(entry: Entry) -> int:
    """Remove the files of a name but the digest, and return how many bytes they had.

    Raises:
        UserError: there are none.
    """
    if not folder_of(entry).is_dir():
        raise UserError(f"{entry.name}: nothing of it is in {cache_folder()}")
    with one_at_a_time(entry) as folder:
        size = bytes_of(entry)
        shutil.rmtree(folder)
    return size


def _record(entry: Entry) -> Path:
    return folder_of(entry).with_suffix(".sha256")
