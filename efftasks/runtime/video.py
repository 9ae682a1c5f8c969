"""Frames of video files, cameras and streams, as OpenCV reads them."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError

__all__ = ["Frame", "Newest", "Video", "is_stream_url"]

_LOG = logging.getLogger("efftasks")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=:)//[^/@]*@")
_LIKELY_FPS = (0.1, 1000.0)  # containers without a rate state one of their time base, such as 90000
_SECONDS_TO_STOP = 2.0


class Frame(NamedTuple):
    """A frame and its number, from 0; frames that cannot be decoded are counted."""

    number: int
    pixels: NDArray[np.uint8]  # (H, W, 3) BGR


class Video:
    """A video file, a camera or a stream, opened. It is iterated over once, and closed by the end of that.

    A frame of a file that cannot be decoded is skipped with a warning in the log ``efftasks``, and reading goes on up
    to the number of frames that the file states. A file that ends before is named in a warning. Of a camera and a
    stream the newest frame is given: those that arrive while nobody asks are dropped.

    Args:
        source: path of a file, index of a camera, or URL of a stream.

    Attributes:
        place: the source for messages and lists; of a URL without user and password.
        name: of the source, for file names: stem of the file, ``camera0``, last part of the URL.
        fps: frames per second, None where they are not stated.
        count: number of frames that a file states; None of cameras and streams, or where it states none.
        live: whether frames are lost that are not read in time.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, source: str | Path | int) -> None:
        self.place = _CREDENTIALS.sub("//", str(source)) if is_stream_url(source) else str(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            raise UserError(f"{self.place}: {_not_opened(source)}")
        self.name = f"camera{source}" if isinstance(source, int) else Path(str(source).split("?")[0]).stem or "stream"
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and _LIKELY_FPS[0] <= fps <= _LIKELY_FPS[1] else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        stated = int(count) if math.isfinite(count) and count >= 1 else None
        self.live = isinstance(source, int) or (is_stream_url(source) and stated is None)
        self.count = None if self.live else stated

        frames = self._read()
        self._frames = Newest(frames) if self.live else frames

    def __iter__(self) -> Iterator[Frame]:
        """The frames, in order."""
        return self._frames

    def close(self) -> None:
        """End the frames and release the capture."""
        self._frames.close()
        self._capture.release()

    def _read(self) -> Generator[Frame, None, None]:
        index, broken, given = 0, 0, 0
        try:
            while True:
                read, pixels = self._capture.read()
                if read:
                    if broken:
                        self._warn_broken(index - broken, index - 1)
                    broken = 0
                    given += 1
                    yield Frame(index, np.asarray(pixels, np.uint8))
                elif self.count is None or index >= self.count:
                    break
                else:  # a frame that cannot be decoded, or the end of a file that has been cut off
                    broken += 1
                index += 1
        finally:
            self._capture.release()
        if not given:
            raise UserError(f"{self.place}: no frame can be decoded, expected a video, a camera or a stream")
        if broken and self.count is not None:
            _LOG.warning(
                "%s: ends after frame %d, though it states %d frames", self.place, index - broken - 1, self.count
            )

    def _warn_broken(self, first: int, last: int) -> None:
        frames = f"frame {first}" if first == last else f"frames {first} to {last}"
        _LOG.warning("%s: %s cannot be decoded, skipped", self.place, frames)


class Newest(Iterator[Frame]):
    """The newest frame of a live source each time; a thread reads all of them.

    Args:
        frames: advanced and closed in that thread.
    """

    def __init__(self, frames: Generator[Frame, None, None]) -> None:
        self._frames = frames
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="efftasks-camera", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        """Wait for a frame that was not given yet.

        Raises:
            StopIteration: the source has ended.
            Exception: what the source raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended)
            frame, self._frame = self._frame, None
            if frame is not None:
                return frame
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread. It waits for at most two seconds: a camera that hangs is left to the thread."""
        with self._changed:
            self._stopped = True
        self._thread.join(_SECONDS_TO_STOP)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._frames:
                with self._changed:
                    if self._stopped:
                        break
                    self._frame = frame
                    self._changed.notify_all()
        except BaseException as raised:
            error = raised
        self._frames.close()
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()


def is_stream_url(source: str | Path | int) -> bool:
    """Whether it is an address, such as ``rtsp://host/path``, and no path."""
    return isinstance(source, str) and _URL.match(source) is not None


def _not_opened(source: str | Path | int) -> str:
    if isinstance(source, int):
        return f"no camera of index {source} can be opened, expected one that this machine has, or a video file"
    if is_stream_url(source):
        return "the stream cannot be opened, expected an address that OpenCV reads"
    return "the video is missing or cannot be decoded"
