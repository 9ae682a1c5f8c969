"""Names, digests, and one process at a time."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from efftasks.structures.errors import UserError, WorkError
from efftasks.zoo.cache import cache_folder, check_digest, folder_of, one_at_a_time, record_digest, remove
from efftasks.zoo.catalog import catalog, find, is_name
from efftasks.zoo.locking import locked

ENTRY = catalog()["dfine-n-coco"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFTASKS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetched(content: bytes) -> Path:
    with one_at_a_time(ENTRY) as folder:
        (folder / "fetched").write_bytes(content)
        return folder / "fetched"


def test_folder_of_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache / "zoo"
    monkeypatch.delenv("EFFTASKS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "efftasks" / "zoo"


def test_the_first_digest_is_kept_also_when_the_files_go(cache: Path) -> None:
    file = fetched(b"weights")
    digest = check_digest(ENTRY, file)
    assert digest == hashlib.sha256(b"weights").hexdigest()
    record_digest(ENTRY, digest)
    assert remove(ENTRY) == len(b"weights")
    assert not folder_of(ENTRY).exists()
    assert check_digest(ENTRY, fetched(b"weights")) == digest
    other = fetched(b"something else")
    with pytest.raises(
        WorkError, match=r"expected \w{16}\.\.\. as .*from an earlier fetch, so it was removed; .*--new-digest"
    ):
        check_digest(ENTRY, other)
    assert not other.exists()


def test_a_stated_digest_wins(cache: Path) -> None:
    file = fetched(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert check_digest(replace(ENTRY, sha256=digest[:8]), file) == digest  # OpenMMLab states eight digits
    with pytest.raises(WorkError, match=r"as its authors state, so it was removed$"):
        check_digest(replace(ENTRY, sha256="0" * 64), file)


def test_removing_what_is_not_there() -> None:
    with pytest.raises(UserError, match="dfine-n-coco: nothing of it is in"):
        remove(ENTRY)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EFFTASKS_CACHE", str(tmp_path / "file"))
    with pytest.raises(WorkError, match=r"cannot be written .* set EFFTASKS_CACHE"), one_at_a_time(ENTRY):
        pass


def test_another_process_waits_for_the_lock() -> None:
    code = (
        "import sys; from efftasks.zoo.cache import one_at_a_time; from efftasks.zoo.catalog import find\n"
        "print('ready', flush=True)\n"
        "with one_at_a_time(find('dfine-n-coco')) as folder: print((folder / 'done').exists())\n"
    )
    with one_at_a_time(ENTRY) as folder:
        root = Path(__file__).resolve().parents[2]
        other = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # it would have ended long ago
            other.wait(timeout=0.5)
        (folder / "done").touch()
    assert other.communicate(timeout=60)[0] == "True\n"


def test_windows_gives_up_after_ten_seconds_and_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for its module, which is on Windows only."""
    errors: list[OSError | None] = [OSError(errno.EDEADLK, "Resource deadlock avoided"), None, OSError(errno.EBADF, "")]

    def locking(descriptor: int, mode: int, size: int) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_LOCK=1, locking=locking))
    monkeypatch.setattr(sys, "platform", "win32")
    with locked(tmp_path / "lock"):
        assert len(errors) == 1
    with pytest.raises(OSError), locked(tmp_path / "lock"):
        pass


def test_a_folder_that_was_removed_while_another_process_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(b"weights")

    @contextmanager
    def removed_meanwhile(path: Path) -> Iterator[None]:
        with locked(path):
            shutil.rmtree(path.with_suffix(""))
            yield

    monkeypatch.setattr("efftasks.zoo.cache.locked", removed_meanwhile)
    with one_at_a_time(ENTRY) as folder:
        assert list(folder.iterdir()) == []


def test_a_record_that_a_full_disk_has_left_empty(cache: Path) -> None:
    file = fetched(b"weights")
    folder_of(ENTRY).with_suffix(".sha256").touch()
    assert check_digest(ENTRY, file) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("dfine-n-coco", True), ("zoo:x", True), ("dfine-n-coko", True), ("model.onnx", False), ("out/model", False)],
)
def test_what_is_a_name(path: str, expected: bool) -> None:
    assert is_name(path) == expected


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dfine-n-coco").mkdir()
    assert not is_name("dfine-n-coco")


@pytest.mark.parametrize(
    ("name", "hint"), [("zoo:dfine-n-coc", "did you mean 'dfine-n-coco'"), ("zzzz", "efftasks zoo lists the names")]
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        find(name)
