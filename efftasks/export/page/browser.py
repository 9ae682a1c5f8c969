"""A browser that pages are verified in: headless Chromium, driven by ChromeDriver over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError, WorkError

__all__ = ["Browser", "has_browser", "serve", "start_browser"]

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, of the protocol
SECONDS = 120  # for a script or the loading of a page
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
        """A command of the protocol.

        Raises:
            WorkError: the browser says that it failed, or does not answer.
        """
        body = None if method == "GET" else json.dumps(data).encode()
        request = urllib.request.Request(f"{self._address}{path}", body, {"Content-Type": "application/json"})
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=SECONDS + 60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise WorkError(f"the browser: {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise WorkError(f"the browser does not answer ({error})") from error

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
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
        """The id of the first element that a CSS selector finds."""
        return self.call("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input element."""
        self.call("POST", f"/element/{self.element(selector)}/value", text=str(path))

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.call("POST", f"/element/{self.element(selector)}/click")

    def press(self, selector: str, keys: str) -> None:
        """Type into an element."""
        self.call("POST", f"/element/{self.element(selector)}/value", text=keys)

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent")

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


def _programs() -> tuple[str | None, str | None]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return shutil.which("chromedriver"), chromium


def has_browser() -> bool:
    """Whether Chromium (or Chrome) and ChromeDriver are on the path."""
    return None not in _programs()


@contextmanager
def start_browser(folder: Path, extra: tuple[str, ...] = ()) -> Iterator[Browser]:
    """A browser without a window on the screen.

    Args:
        folder: an empty one, for its profile.
        extra: more arguments of Chromium.

    Raises:
        UserError: none is installed.
        WorkError: it does not start.
    """
    driver, chromium = _programs()
    if driver is None or chromium is None:
        raise UserError("Chromium and ChromeDriver are not on the path, expected both")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "started successfully on port" in line), None)
        if line is None:
            raise WorkError(f"{driver} does not start (exit code {process.wait()})")
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
