"""Frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from efftasks.structures.errors import UserError

__all__ = ["read_frames"]


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 (H, W, 3) BGR.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise UserError(f"{path}: the video is missing or cannot be decoded")
        while True:
            read, frame = capture.read()
            if not read:
                return
            yield frame
    finally:
        capture.release()
