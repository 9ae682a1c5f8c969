"""Video with key frames: the network runs where the picture has changed, and its results are carried in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import LoadedImage
from efftasks.runtime.carrying import Moved, carry, move_boxes, to_small
from efftasks.runtime.change import measure_change
from efftasks.runtime.motion import KeyPicture, Shape, small_picture
from efftasks.runtime.pipeline import run_ahead
from efftasks.runtime.sources import Item, OnError, Skip, check_sequence, error_handler, open_source
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["FrameSequence", "KeyFramePredictor", "KeyFrameSettings"]

Detect = Callable[[NDArray[np.uint8]], "list[Prediction]"]

_LEAST_UNCOVERED = 0.002  # share of a frame, below which a strip at its border is noise of the estimated motion
_MOST_UNCOVERED = 0.1  # share from which the network runs at once
_WAITS = 2  # frames on which a strip at the border stays uncovered, at most
_CONFIDENT = 0.3  # score from which a box is that of an object, which may change a little
_AHEAD, _AHEAD_OF_CAMERA = 3, 2  # frames that are read or predicted and not taken yet


@dataclass(frozen=True)
class KeyFrameSettings:
    """On which frames the network runs.

    Attributes:
        threshold: change from which it runs, in the region that has changed most: the mean difference of gray values
            over the standard deviation of those of the key frame. See
            :func:`efftasks.runtime.change.measure_change`.
        max_interval: frames from one key frame to the next, at most; 1 runs it on all frames.
        every: run it on each ``every``-th frame, whatever the picture; None by change.

    Raises:
        UserError: one of them is out of range.
    """

    threshold: float = 0.3
    max_interval: int = 12
    every: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < np.inf:
            raise UserError(f"key frames: threshold: got {self.threshold}, expected a number from 0")
        for name, value in (("max_interval", self.max_interval), ("every", self.every)):
            if value is not None and value < 1:
                raise UserError(f"key frames: {name}: got {value}, expected an integer from 1")


class KeyFramePredictor:
    """Predicts the frames of a video, and runs the network on some of them only: the key frames.

    In between, the detections of the last key frame are moved with the camera and with their objects, as the motion of
    points says. Boxes, masks and keypoints are moved; scores stay. The network runs on the first frame; where a region
    differs from the key frame after the motion is taken out, as a new object or a cut do; where the motion cannot be
    told; one to three frames after the camera has begun to show what was not seen before; and after ``max_interval``
    frames.

    The state is that of one source: each call of :meth:`stream` and of the predictor itself starts with a key frame.

    Args:
        detect: predicts one image, an array uint8 (H, W, 3) BGR: a :class:`efftasks.runtime.predictor.Predictor`, or
            what takes its place.
        settings: on which frames it runs.
        pixel_range: of frames with more than 8 bits: ``predictor.spec.input.pixel_range``.
    """

    def __init__(
        self, detect: Detect, settings: KeyFrameSettings | None = None, pixel_range: PixelRange | None = None
    ) -> None:
        self._detect, self._pixel_range = detect, pixel_range
        self.settings = settings or KeyFrameSettings()

    def __call__(
        self, images: Any, batch_size: int = 1, on_error: OnError = "raise", readers: int | None = None
    ) -> list[Prediction]:
        """Predict the frames of one sequence; arguments and errors as for :meth:`stream`."""
        return list(self.stream(images, batch_size, on_error, readers))

    def stream(
        self,
        source: Any,
        batch_size: int = 1,
        on_error: OnError = "raise",
        readers: int | None = None,
        keep_pixels: bool = False,
    ) -> Iterator[Prediction]:
        """Predict one frame after another, with a bounded number of them in memory.

        Threads read ahead, and predict ahead of the caller.

        Args:
            source: as for :meth:`efftasks.runtime.predictor.Predictor.stream`. Images are frames in their order; those
                of a folder or pattern have the number of the frame at the end of their names, with leading zeros.
            batch_size: 1, since whether the network runs on a frame depends on the frame before.
            on_error: as for :meth:`efftasks.runtime.predictor.Predictor.stream`.
            readers: number of threads that read images; None for one. A video has one.
            keep_pixels: as for :meth:`efftasks.runtime.predictor.Predictor.stream`.

        Returns:
            An iterator of predictions, as those of :meth:`efftasks.runtime.predictor.Predictor.stream`. Those that were
            not computed on their frame have the number of their key frame in ``carried_from``; of images that is their
            position.

        Raises:
            UserError: the source or a frame of it cannot be read, or is no sequence; ``batch_size`` is not 1; or the
                model gives label maps, which are not carried.
        """
        if batch_size != 1:
            raise UserError(f"batch_size: got {batch_size}, expected 1 with key frames, which follow one another")
        if readers is not None and readers < 1:
            raise UserError(f"readers: got {readers}, expected an integer from 1, or None")
        work = _Work(self._detect, self.settings, self._pixel_range, error_handler(on_error), keep_pixels)
        return _stream(source, readers or 1, work)


class FrameSequence:
    """The frames of one source, in order, and the key frame that they are compared with.

    Args:
        detect: see :class:`KeyFramePredictor`.
        settings: see :class:`KeyFramePredictor`.
    """

    def __init__(self, detect: Detect, settings: KeyFrameSettings) -> None:
        self._detect, self._settings = detect, settings
        self._longest = settings.max_interval if settings.every is None else settings.every
        self._key: _Key | None = None
        self._uncovered_from: int | None = None  # the first frame that has shown what the key frame has not

    def predict(self, pixels: NDArray[np.uint8], position: int) -> Prediction:
        """Predict the next frame.

        Args:
            pixels: uint8 (H, W, 3) BGR.
            position: its number, above that of the frame before; frames may be left out.

        Raises:
            UserError: the model gives a label map.
        """
        size = pixels.shape[:2]
        gray = small_picture(pixels) if self._longest > 1 else None
        moved = None if gray is None or self._key is None else self._moved(self._key, gray, size, position)
        if self._key is not None and moved is not None:
            carried = carry(self._key.prediction, moved, size)
            return replace(carried, carried_from=self._key.position, exit_score=None, exited=None)
        prediction = self._detect(pixels)[0]
        if prediction.segmentation is not None:
            raise UserError("key frames: got a model that gives label maps, expected one that finds objects alone")
        if gray is not None:
            self._key, self._uncovered_from = _Key(position, size, KeyPicture(gray), prediction), None
        return prediction

    def _moved(self, key: _Key, gray: NDArray[np.uint8], size: Shape, position: int) -> Moved | None:
        """The boxes of the key frame in a frame; None where the network has to run."""
        if size != key.size or position - key.position >= self._longest:
            return None
        if self._uncovered_from is not None and position - self._uncovered_from >= _WAITS:
            return None
        motion = key.picture.follow(gray)
        if motion is None:
            return None
        moved = move_boxes(key.prediction.boxes, motion, size, gray.shape)
        if self._settings.every is not None:
            return moved
        object_boxes = to_small(moved.boxes[key.prediction.scores >= _CONFIDENT], size, gray.shape)
        change = measure_change(key.picture.gray, gray, motion.camera, object_boxes)
        if change.uncovered >= _LEAST_UNCOVERED and self._uncovered_from is None:
            self._uncovered_from = position
        has_changed = change.level >= self._settings.threshold or change.uncovered >= _MOST_UNCOVERED
        return None if has_changed else moved


class _Key(NamedTuple):
    """A key frame."""

    position: int
    size: Shape
    picture: KeyPicture
    prediction: Prediction


class _Ready(NamedTuple):
    """A frame that has been read, or the error of one that cannot be; neither at the end of a video."""

    item: Item | None = None
    loaded: LoadedImage | None = None
    error: UserError | None = None


class _Done(NamedTuple):
    """The prediction of a frame, or its error; neither at the end of a video."""

    prediction: Prediction | None = None
    error: UserError | None = None


class _Work:
    """What the threads of a stream do.

    Args:
        detect: see :class:`KeyFramePredictor`.
        settings: see :class:`KeyFramePredictor`.
        pixel_range: see :class:`KeyFramePredictor`.
        skip: called with the errors of images that cannot be read; None to raise them.
        keep_pixels: whether images are kept for drawing.
    """

    def __init__(
        self,
        detect: Detect,
        settings: KeyFrameSettings,
        pixel_range: PixelRange | None,
        skip: Skip | None,
        keep_pixels: bool,
    ) -> None:
        self._frames, self._pixel_range = FrameSequence(detect, settings), pixel_range
        self.skip, self._keep_pixels = skip, keep_pixels

    def read(self, item: Item | None) -> _Ready:
        """Read a frame, in a thread of the readers."""
        if item is None:
            return _Ready()
        try:
            return _Ready(item, item.load(self._pixel_range))
        except UserError as error:
            if self.skip is None:
                raise
            return _Ready(error=error)

    def run(self, ready: _Ready) -> _Done:
        """Predict a frame, in the thread of the session."""
        if ready.item is None or ready.loaded is None:
            return _Done(error=ready.error)
        source, pixels, name = ready.loaded
        prediction = self._frames.predict(pixels, ready.item.position)
        kept = pixels if self._keep_pixels else None
        return _Done(replace(prediction, image=source, name=name, frame=ready.item.frame, pixels=kept))


def _stream(source: Any, readers: int, work: _Work) -> Iterator[Prediction]:
    with closing(open_source(source)) as opened:
        check_sequence(opened, "key frames")
        items = iter(opened)
        if opened.video:  # the reader decodes the frames, too; of a camera it waits for them, and few are held
            ahead = _AHEAD_OF_CAMERA if opened.live else _AHEAD
            results = run_ahead(repeat(items), lambda rest: work.read(next(rest, None)), work.run, 1, ahead)
        else:
            results = run_ahead(items, work.read, work.run, readers, _AHEAD + readers)
        with closing(results):
            for prediction, error in results:
                if prediction is not None:
                    yield prediction
                elif error is None or work.skip is None:
                    return
                else:
                    work.skip(error)
