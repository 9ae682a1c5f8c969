"""A page in a browser: it is given pictures, and what it shows is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from efftasks.export.page.browser import Browser
from efftasks.structures.errors import WorkError

__all__ = ["OpenedPage", "Shown"]


class Shown(NamedTuple):
    """What a page shows of a picture, best first.

    Attributes:
        boxes: float32 (K, 4) xyxy in pixels of the picture.
        scores: float32 (K,).
        labels: int64 (K,).
        keypoints: float32 (K, P, 3), or None.
        mask_areas: int64 (K,) pixels of each mask, or None.
        class_areas: int64 (C,) pixels of each class of the label map that occurs; none where there is no map.
        milliseconds: that the network took, as the page has it.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    keypoints: np.ndarray | None
    mask_areas: np.ndarray | None
    class_areas: np.ndarray
    milliseconds: float


class OpenedPage:
    """A page that has loaded its model.

    Args:
        browser: the browser.
        address: of the page.

    Raises:
        WorkError: the page says that it cannot run the model.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        browser.open(address)
        browser.wait_for('document.body.dataset.state !== "loading"')
        if browser.run("return document.body.dataset.state") != "ready":
            raise WorkError(f"{address}: {browser.text('#message')}")

    def show(self, picture: Path) -> Shown:
        """Give it a picture, and read what it shows at a confidence of 0.

        Raises:
            WorkError: the page says that it cannot show the picture.
        """
        browser = self._browser
        browser.run("document.getElementById('threshold').value = 0")
        browser.run("document.getElementById('status').textContent = 'Running …'")  # as the page has it
        browser.choose_file("#file", picture.resolve())
        browser.wait_for('document.getElementById("status").textContent !== "Running …"')
        if browser.text("#status") != picture.name:
            raise WorkError(f"{picture}: {browser.text('#message')}")
        rows = browser.run('return [...document.querySelectorAll("#rows tr")].map((row) => ({ ...row.dataset }))')
        items = browser.run('return [...document.querySelectorAll("#legend li")].map((item) => ({ ...item.dataset }))')
        areas = {int(item["label"]): int(item["pixels"]) for item in items if "pixels" in item}
        first = rows[0] if rows else {}

        def numbers(key: str) -> np.ndarray:
            return np.array([[float(value) for value in row[key].split()] for row in rows], np.float32)

        return Shown(
            boxes=numbers("box").reshape(-1, 4),
            scores=numbers("score").reshape(-1),
            labels=numbers("label").reshape(-1).astype(np.int64),
            keypoints=numbers("keypoints").reshape(len(rows), -1, 3) if "keypoints" in first else None,
            mask_areas=numbers("pixels").reshape(-1).astype(np.int64) if "pixels" in first else None,
            class_areas=np.array([areas[label] for label in sorted(areas)], np.int64),
            milliseconds=float(browser.text("#time-run").removesuffix(" ms")),
        )
