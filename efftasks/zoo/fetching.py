"""Fetching a file over HTTP: with progress, going on where an earlier try ended, and in one sentence where it fails."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from efftasks.structures.errors import UserError, WorkError

__all__ = ["MIRROR", "address", "fetch"]

MIRROR = "EFFTASKS_ZOO_MIRROR"
_LOG = logging.getLogger("efftasks")
_TRIES = 5
_CHUNK = 1 << 20
_SECONDS = 30  # without a byte
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


def address(url: str, file: str) -> str:
    """Where a file is fetched from: its authors' address, or the mirror that the environment names.

    Raises:
        UserError: the mirror is no HTTP address.
    """
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return url
    if not _is_address(mirror):
        raise UserError(f"{MIRROR}: got {mirror!r}, expected an address such as http://localhost:8000")
    return f"{mirror.rstrip('/')}/{file}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in text
    except ValueError:  # of the port
        return False


class _Broken(Exception):
    """A try that ended early; the next one goes on from there."""


def fetch(url: str, target: Path, name: str, wait: Callable[[float], object] = time.sleep) -> None:
    """Fetch a file. What an interrupted call has left, ``target`` with ``.part``, is taken up where it ends.

    Args:
        url: an HTTP address.
        target: the file to write, complete or not at all, in a folder that exists.
        name: of what is fetched, for messages.
        wait: is called with seconds before another try.

    Raises:
        WorkError: the server cannot be reached, does not have the file, breaks off each time, or the disk is full.
    """
    part = target.with_name(f"{target.name}.part")
    for number in range(_TRIES):
        try:
            _go_on(url, part, name)
        except _Broken as broken:
            if number + 1 == _TRIES:
                raise WorkError(
                    f"{name}: {url} broke off {_TRIES} times ({broken}), and {_megabytes(_size(part))} of it are kept: "
                    "run the command again to go on from there"
                ) from broken
            _LOG.info("%s: %s; it goes on", name, broken)
            wait(2.0**number)
        else:
            os.replace(part, target)
            return


def _go_on(url: str, part: Path, name: str) -> None:
    """Fetch what is missing of a file.

    Raises:
        _Broken: not all of it came.
        WorkError: another try would not help.
    """
    version = part.with_name(f"{part.name}.version")
    start = _size(part) if version.is_file() else 0
    headers = {"User-Agent": "efftasks", "Accept-Encoding": "identity"}
    if start:  # the server may have another file by now, and then sends all of it
        headers |= {"Range": f"bytes={start}-", "If-Range": version.read_text(encoding="utf-8")}
    try:
        with urlopen(Request(url, headers=headers), timeout=_SECONDS) as response:
            _check_kind(response, url, name)
            if response.status != 206:
                start = 0
            length = response.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            _check_room(part, 0 if total is None else total - start, name)
            version.write_text(_version_of(response), encoding="utf-8")
            _copy(response, part, start, total, name)
    except HTTPError as error:
        if error.code == 416:  # more is here than the server has
            part.unlink(missing_ok=True)
            raise _Broken("the rest of it is not there") from error
        if error.code in _TEMPORARY:
            raise _Broken(f"HTTP {error.code} {error.reason}") from error
        raise WorkError(f"{name}: {url} answers HTTP {error.code} {error.reason}, expected the file") from error
    except (URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        _raise_for(error, url, name)
    if total is not None and _size(part) != total:
        raise _Broken(f"{_size(part)} of {total} bytes came")
    version.unlink(missing_ok=True)


def _version_of(response: Any) -> str:
    """What tells this file from a later one at the same address; no server has the text that stands for nothing."""
    etag = response.headers.get("ETag") or ""
    strong = etag if not etag.startswith("W/") else ""  # of a weak one bytes may differ
    return strong or response.headers.get("Last-Modified") or '"none"'


def _raise_for(error: Exception, url: str, name: str) -> NoReturn:
    """A break in the middle is tried again; a server that cannot be reached is not."""
    reason: Any = error.reason if isinstance(error, URLError) else error
    if not isinstance(error, URLError) or isinstance(reason, TimeoutError):
        raise _Broken(str(reason) or type(reason).__name__) from error
    raise WorkError(
        f"{name}: {urlsplit(url).netloc} cannot be reached ({getattr(reason, 'strerror', None) or reason}); it is "
        f"fetched once, with a network, or from the mirror that {MIRROR} names"
    ) from error


def _check_kind(response: Any, url: str, name: str) -> None:
    if response.headers.get_content_type() == "text/html":
        raise WorkError(
            f"{name}: {url} gives a web page, expected a file: the network may ask for a login, or the authors have "
            "moved it"
        )


def _check_room(part: Path, missing: int, name: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise _full(part, name, f"{_megabytes(missing)} to fetch, {_megabytes(free)} free")


def _full(part: Path, name: str, what: str) -> WorkError:
    return WorkError(
        f"{name}: the disk of {part.parent} is full ({what}); free some (efftasks zoo remove), or set EFFTASKS_CACHE "
        "to a folder on another one"
    )


def _copy(response: Any, part: Path, start: int, total: int | None, name: str) -> None:
    from tqdm import tqdm

    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=None, leave=False)
    try:
        with bar, part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(part, name, os.strerror(error.errno)) from error
        raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
