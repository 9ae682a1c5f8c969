"""A small server of files that can break off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` with their ETag; ``faults`` are what the next answers do instead.

    A fault is an HTTP status to answer with, or the number of bytes after which the connection breaks.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etag = '"one"'
        self.kind = "application/octet-stream"
        self.faults: list[int] = []
        self.ranges: list[str | None] = []  # of the requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        server, content = self.server, self.server.files.get(self.path[1:])
        asked = self.headers["Range"]
        server.ranges.append(asked)
        fault = server.faults.pop(0) if server.faults else None
        if content is None or (fault is not None and 400 <= fault < 600):
            self.send_error(fault or 404)
            return
        start = 0
        if asked and self.headers["If-Range"] == server.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(content[start:] if fault is None else content[start : start + fault])


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that runs while the block does."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
