"""A browser for tests: headless Chromium, driven by ChromeDriver over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, of the protocol
SECONDS = 120
ARGUMENTS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
    "--use-fake-ui-for-media-stream",
]


class Browser:
    """One window of a browser."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, path: str, **data: Any) -> Any:
        body = None if method == "GET" else json.dumps(data).encode()
        request = urllib.request.Request(f"{self._address}{path}", body, {"Content-Type": "application/json"})
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=SECONDS + 60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def run(self, script: str) -> Any:
        """Run a function body, and wait for what it returns if that is a promise."""
        return self.call("POST", "/execute/sync", script=script, args=[])

    def wait_for(self, condition: str) -> Any:
        """Wait in the browser until an expression is true: at every frame, and on a page without frames in time."""
        return self.run(
            f"return new Promise((resolve) => {{ const look = () => {{ const value = {condition};"
            " value ? resolve(value) : setTimeout(look, 20); }; look(); })"
        )

    def element(self, selector: str) -> str:
        return self.call("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def choose_file(self, selector: str, path: Path) -> None:
        self.call("POST", f"/element/{self.element(selector)}/value", text=str(path))

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/click")

    def press(self, selector: str, keys: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/value", text=keys)

    def text(self, selector: str) -> str:
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextmanager
def start_browser(folder: Path, extra: tuple[str, ...] = ()) -> Iterator[Browser]:
    """A browser with an empty profile; skips the test where there is none."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("Chromium and ChromeDriver are not installed")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "started successfully on port" in line)
        address = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}/session"
        arguments = [*ARGUMENTS, *extra, f"--user-data-dir={folder}"]
        if os.geteuid() == 0:  # Chromium refuses its sandbox to root
            arguments.append("--no-sandbox")
        options = {"binary": chromium, "args": arguments}
        capabilities = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": SECONDS * 1000, "pageLoad": SECONDS * 1000},
        }
        session = Browser(address).call("POST", "", capabilities={"alwaysMatch": capabilities})
        browser = Browser(f"{address}/{session['sessionId']}")
        try:
            yield browser
        finally:
            browser.call("DELETE", "")
    finally:
        process.terminate()
        process.wait()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a static file server, that of ``python -m http.server``."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
