"""Fetching goes on where it broke off, and says in one sentence why it cannot."""

from __future__ import annotations

import errno
import shutil
import ssl
from collections import namedtuple
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from efftasks.structures.errors import UserError, WorkError
from efftasks.zoo.fetching import address, fetch

CONTENT = bytes(range(256)) * 20  # 5120 bytes


@pytest.fixture
def waits() -> list[float]:
    return []


def get(server: Any, target: Path, waits: list[float]) -> None:
    fetch(f"{server.url}/a.pth", target, "a", waits.append)


def test_whole_file(server: Any, tmp_path: Path, waits: list[float]) -> None:
    server.files["a.pth"] = CONTENT
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
    assert waits == []


def test_goes_on_after_breaks_and_passing_faults(server: Any, tmp_path: Path, waits: list[float]) -> None:
    server.files["a.pth"] = CONTENT
    server.faults = [1000, 503, 2000]
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=3000-"]
    assert waits == [1, 2, 4]


def test_goes_on_after_a_break_of_the_encryption(
    server: Any, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.pth"] = CONTENT
    breaks: list[Exception] = [ssl.SSLEOFError(8, "EOF occurred in violation of protocol")]
    read = HTTPResponse.read

    def read_or_break(response: HTTPResponse, amount: int | None = None) -> bytes:
        if breaks:
            raise breaks.pop()
        return read(response, amount)

    monkeypatch.setattr(HTTPResponse, "read", read_or_break)
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert waits == [1]


def test_a_later_call_goes_on(server: Any, tmp_path: Path, waits: list[float]) -> None:
    server.files["a.pth"] = CONTENT
    server.faults = [700, 200, 0, 0, 0]  # bytes of each answer
    with pytest.raises(WorkError, match=r"broke off 5 times \(900 of 5120 bytes came\), and 0\.0 MB of it are kept"):
        get(server, tmp_path / "a.pth", waits)
    assert not (tmp_path / "a.pth").exists()
    server.ranges.clear()
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.ranges == ["bytes=900-"]


def test_a_file_that_was_replaced_meanwhile_is_fetched_anew(server: Any, tmp_path: Path, waits: list[float]) -> None:
    server.files["a.pth"] = CONTENT
    server.faults = [2000, 404]
    with pytest.raises(WorkError, match="answers HTTP 404"):
        get(server, tmp_path / "a.pth", waits)
    server.files["a.pth"], server.etag = CONTENT[::-1], '"two"'
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("rest", [b"", b"more"])
def test_a_part_that_is_no_part_of_the_file(rest: bytes, server: Any, tmp_path: Path, waits: list[float]) -> None:
    """As long as the file, or longer: servers answer 416."""
    server.files["a.pth"] = CONTENT
    (tmp_path / "a.pth.part").write_bytes(CONTENT + rest)
    (tmp_path / "a.pth.part.version").write_text(server.etag)
    server.faults = [416]
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_web_page_is_no_file(server: Any, tmp_path: Path, waits: list[float]) -> None:
    server.files["a.pth"], server.kind = b"<html>log in", "text/html"
    with pytest.raises(WorkError, match="gives a web page, expected a file"):
        get(server, tmp_path / "a.pth", waits)
    assert list(tmp_path.iterdir()) == []


def test_offline(tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(WorkError, match=r"a: 127\.0\.0\.1:1 cannot be reached \(.+\); it is fetched once, with a"):
        fetch("http://127.0.0.1:1/a.pth", tmp_path / "a.pth", "a", waits.append)
    assert waits == []


def test_full_disk_before_anything_is_fetched(
    server: Any, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.pth"] = CONTENT
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9999, 9000, 5000))
    with pytest.raises(WorkError, match=r"is full \(0\.0 MB to fetch, 0\.0 MB free\); free some .*EFFTASKS_CACHE"):
        get(server, tmp_path / "a.pth", waits)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9999, 4879, 5120))
    get(server, tmp_path / "a.pth", waits)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_disk_that_fills_up_meanwhile(
    server: Any, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.pth"] = CONTENT
    opened = Path.open

    def open_full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if path.name == "a.pth.part" and mode in ("wb", "r+b"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(WorkError, match=r"the disk of .* is full \(No space left on device\)"):
        get(server, tmp_path / "a.pth", waits)
    assert waits == []


def test_address_and_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EFFTASKS_ZOO_MIRROR", raising=False)
    assert address("https://x.org/y.pth", "a.pth") == "https://x.org/y.pth"
    monkeypatch.setenv("EFFTASKS_ZOO_MIRROR", "http://localhost:8000/files/")
    assert address("https://x.org/y.pth", "a.pth") == "http://localhost:8000/files/a.pth"


@pytest.mark.parametrize("mirror", ["/data/files", "http://", "http://localhost:abc", "http://local host"])
def test_a_mirror_without_an_address(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFTASKS_ZOO_MIRROR", mirror)
    with pytest.raises(UserError, match=f"got '{mirror}', expected an address such as http://localhost:8000"):
        address("https://x.org/y.pth", "a.pth")
