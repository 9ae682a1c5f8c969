"""What is predicted on: images, or the frames of a video, one after another and never all at a time."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from efftasks.imaging.images import VIDEO_SUFFIXES
from efftasks.imaging.sources import LoadedImage, each_image, find_images, load_image
from efftasks.runtime.video import Video, is_stream_url
from efftasks.structures.errors import UserError

__all__ = [
    "Images",
    "Item",
    "OnError",
    "Skip",
    "Source",
    "VideoFrames",
    "check_sequence",
    "error_handler",
    "is_video",
    "open_source",
]

_LOG = logging.getLogger("efftasks")

Skip = Callable[[UserError], object]
OnError = Literal["raise", "skip"] | Skip


class Item(NamedTuple):
    """One image of a source, not read yet, or one frame."""

    image: Any  # as `load_image` takes it
    position: int  # in the source; of a frame its number
    name: str = ""  # of a frame, for file names; empty for that of the image
    frame: int | None = None  # number of a frame, from 0

    def load(self, *settings: Any) -> LoadedImage:
        """Read, decode or convert it.

        Args:
            settings: ``pixel_range`` and ``warn`` of :func:`efftasks.imaging.sources.load_image`.

        Raises:
            UserError: it cannot be read.
        """
        loaded = load_image(self.image, self.position, *settings)
        return loaded._replace(name=self.name) if self.name else loaded


class Images:
    """Images of a path, folder, glob pattern, list or generator; see :class:`efftasks.runtime.predictor.Predictor`.

    Attributes:
        paths: of all of them, where they are files of a folder, a pattern or a single one; empty otherwise.
        total: number of images where it is known.
    """

    name = place = "images"
    video = live = False
    fps: float | None = None

    def __init__(self, images: Any) -> None:
        self.paths = find_images(images) if isinstance(images, (str, Path)) else []
        self._images = self.paths or images
        self.total = len(self._images) if isinstance(self._images, (list, tuple)) else None

    def __iter__(self) -> Iterator[Item]:
        """The images, not read yet."""
        return (Item(image, i) for i, image in enumerate(each_image(self._images)))

    def close(self) -> None:
        """Nothing to close."""


class VideoFrames:
    """Frames of a video file, a camera or a stream; see :class:`efftasks.runtime.video.Video`.

    Attributes:
        name: for file names.
        place: for messages and lists, without passwords.
        total: number of frames where it is known.
        fps: frames per second where they are known.
        live: whether frames are lost that are not read in time.
    """

    video = True
    paths: tuple[str, ...] = ()

    def __init__(self, source: str | Path | int) -> None:
        self._video = Video(source)
        self.name, self.place, self.total = self._video.name, self._video.place, self._video.count
        self.fps, self.live = self._video.fps, self._video.live

    def __iter__(self) -> Iterator[Item]:
        """The frames; to advance the iterator decodes one."""
        for number, pixels in self._video:
            yield Item(pixels, number, f"{self.name}_{number:06d}", number)

    def close(self) -> None:
        """Release the video."""
        self._video.close()


Source = Images | VideoFrames


def is_video(source: Any) -> bool:
    """Whether it is a video file, a camera index or a URL."""
    if isinstance(source, int):
        return not isinstance(source, bool)
    if not isinstance(source, (str, Path)):
        return False
    return is_stream_url(source) or _camera(source) is not None or Path(source).suffix.lower() in VIDEO_SUFFIXES


def open_source(source: Any) -> Source:
    """Open what is predicted on.

    Args:
        source: images as :class:`efftasks.runtime.predictor.Predictor` takes them; the path of a video file; the index
            of a camera, also as a text such as ``"0"`` where no file has that name; the URL of a stream; or what this
            function has opened.

    Raises:
        UserError: there is no image, or the video cannot be opened.
    """
    if isinstance(source, (Images, VideoFrames)):
        return source
    if isinstance(source, bool):
        raise UserError(f"source: got {source}, expected images, a video or the index of a camera")
    if not is_video(source):
        return Images(source)
    camera = _camera(source)
    return VideoFrames(source if camera is None else camera)


def check_sequence(source: Source, purpose: str) -> None:
    """Files are frames of a video if their names end with ascending numbers.

    Args:
        source: any; videos are, and lists are taken as they are.
        purpose: what needs it, for the message.

    Raises:
        UserError: it is one image, or numbers are missing or out of order.
    """
    if not source.paths:
        return
    if len(source.paths) == 1:
        raise UserError(f"{source.paths[0]}: {purpose}: got one image, expected a video or a folder of its frames")
    last = -1
    for path in source.paths:
        digits = re.search(r"\d+$", Path(path).stem)
        if digits is None or int(digits[0]) <= last:
            what = "no number" if digits is None else f"number {int(digits[0])} after {last}"
            raise UserError(
                f"{path}: {purpose}: got {what} at the end of the name, expected frames in order, such as "
                "frame_0001.jpg with leading zeros"
            )
        last = int(digits[0])


def error_handler(on_error: OnError) -> Skip | None:
    """What is called with the error of an image that cannot be read; None to raise it.

    Args:
        on_error: ``raise``; ``skip`` for a warning in the log ``efftasks``; or what is to be called.

    Raises:
        UserError: it is none of these.
    """
    if callable(on_error):
        return on_error
    if on_error not in ("raise", "skip"):
        raise UserError(f"on_error: got {on_error!r}, expected 'raise', 'skip' or a function")
    return None if on_error == "raise" else _log_skipped


def _log_skipped(error: UserError) -> None:
    _LOG.warning("skipped: %s", error)


def _camera(source: str | Path | int) -> int | None:
    """The index of a camera; None for anything else."""
    if isinstance(source, int):
        index: int | None = source
    else:
        text = str(source)
        index = int(text) if text.isascii() and text.isdecimal() and not Path(text).exists() else None
    if index is not None and index < 0:
        raise UserError(f"source: got {index}, expected the index of a camera, an integer from 0")
    return index
