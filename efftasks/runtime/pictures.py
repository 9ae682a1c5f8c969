"""Pictures and videos of predictions, drawn and written one after another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.drawing import jpeg_of
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import WorkError

__all__ = ["DEFAULT_FPS", "Annotate", "FreeStems", "PictureWriter", "VideoWriter"]

_LOG = logging.getLogger("efftasks")
Annotate = Callable[[NDArray[np.uint8], Prediction], NDArray[np.uint8]]
DEFAULT_FPS = 25.0  # of sources that state none
# Container and codec, in the order of trial. OpenCV's wheels have no encoder for H.264; MPEG-4 Part 2 needs the FFmpeg
# in them, and Motion JPEG is written by OpenCV itself.
_CODECS = ((".mp4", "mp4v"), (".avi", "MJPG"))


class FreeStems:
    """Stems of files in a folder, each given once, and none that would replace a file that is read.

    Args:
        out: the folder.
        suffixes: of the files that are written by a stem.
        taken: files that are read.
    """

    def __init__(self, out: str | Path, suffixes: Iterable[str], taken: Iterable[str | Path] = ()) -> None:
        self._out, self._suffixes = Path(out).resolve(), tuple(suffixes)
        self._used = {Path(path).resolve() for path in taken}
        self._given: Counter[str] = Counter()

    def take(self, stem: str) -> str:
        """The stem, or the stem with a number."""
        while True:
            number = self._given[stem]
            self._given[stem] += 1
            candidate = f"{stem}_{number}" if number else stem
            paths = [self._out / f"{candidate}{suffix}" for suffix in self._suffixes]
            if not self._used.intersection(paths):
                self._used.update(paths)
                return candidate


class PictureWriter:
    """``<stem>.jpg`` of each prediction.

    Args:
        out: folder, which exists.
        score_thr: see :meth:`efftasks.imaging.prediction.Prediction.draw`.
        annotate: draws more on each picture; None for nothing.
    """

    def __init__(self, out: str | Path, score_thr: float, annotate: Annotate | None = None) -> None:
        self._out, self._score_thr, self._annotate = Path(out), score_thr, annotate

    def add(self, name: str, prediction: Prediction) -> None:
        """Draw and write a picture.

        Raises:
            UserError: the image cannot be read.
            WorkError: the picture cannot be written.
        """
        path = self._out / f"{prediction.stem}.jpg"
        picture = _drawn(prediction, self._score_thr, self._annotate)
        try:
            path.write_bytes(jpeg_of(picture))
        except OSError as error:
            raise WorkError(f"{path}: the picture could not be written ({error.strerror})") from error

    def close(self) -> None:
        """Nothing to complete."""


class VideoWriter:
    """A video of the drawn predictions: MPEG-4 in ``.mp4``, or Motion JPEG in ``.avi`` where OpenCV lacks the former.

    Frames of another size than the first are resized to it. OpenCV drops the last row or column of an odd size.

    Args:
        path: of the file, without suffix.
        fps: frames per second; None for 25.
        score_thr: see :meth:`efftasks.imaging.prediction.Prediction.draw`.
        annotate: draws more on each picture; None for nothing.

    Attributes:
        path: of the file; None before the first frame.
    """

    def __init__(self, path: str | Path, fps: float | None, score_thr: float, annotate: Annotate | None = None) -> None:
        self._stem, self._fps, self._score_thr, self._annotate = Path(path), fps or DEFAULT_FPS, score_thr, annotate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.path: Path | None = None

    def add(self, name: str, prediction: Prediction) -> None:
        """Draw and write a frame.

        Raises:
            WorkError: no video can be written.
        """
        picture = _drawn(prediction, self._score_thr, self._annotate)
        if self._writer is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._writer = self._open()
        if (picture.shape[1], picture.shape[0]) != self._size:  # OpenCV would drop the frame without a word
            picture = np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(picture)

    def close(self) -> None:
        """Complete the video."""
        if self._writer is not None:
            self._writer.release()

    def _open(self) -> cv2.VideoWriter:
        for suffix, codec in _CODECS:
            self.path = self._stem.with_name(f"{self._stem.name}{suffix}")
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*codec), self._fps, self._size)
            if writer.isOpened():
                return writer
            _LOG.warning("%s: this OpenCV writes no %s", self.path, codec)
        raise WorkError(f"{self._stem}: this OpenCV writes neither {' nor '.join(codec for _, codec in _CODECS)} video")


def _drawn(prediction: Prediction, score_thr: float, annotate: Annotate | None) -> NDArray[np.uint8]:
    picture = prediction.draw(score_thr=score_thr)
    return picture if annotate is None else annotate(picture, prediction)
