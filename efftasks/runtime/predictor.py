"""Predict with an exported file: no PyTorch, no OpenMMLab."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.crops import TOP_DOWN
from efftasks.imaging.label_maps import labels_on_image
from efftasks.imaging.masks import masks_on_image
from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import each_image, find_images, in_batches
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.exits import EXITED
from efftasks.runtime.pipeline import run_ahead
from efftasks.runtime.preprocess import (
    Placement,
    fit_image,
    input_buffer,
    keypoints_to_image,
    to_image_pixels,
    write_image,
)
from efftasks.runtime.sources import Item, OnError, Skip, error_handler, open_source
from efftasks.structures.errors import UserError
from efftasks.structures.spec import EXIT_SCORE

__all__ = ["Predictor", "find_images"]

_LOG = logging.getLogger("efftasks")
_OBJECTS = {"boxes", "scores", "labels"}
_AHEAD = 3  # batches that are read or predicted and not taken yet


class _Seen(NamedTuple):
    """What is kept of an image whose pixels are in a network input."""

    source: str | NDArray[np.uint8]
    name: str
    frame: int | None
    place: Placement
    pixels: NDArray[np.uint8] | None  # where they are kept for drawing


@dataclass
class _Batch:
    """Images of a batch, in the first places of a network input, and then its outputs."""

    buffer: np.ndarray
    images: list[_Seen] = field(default_factory=list)
    errors: list[UserError] = field(default_factory=list)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def inputs(self) -> np.ndarray:
        """The part of the network input that has images."""
        return self.buffer[: len(self.images)]


class Predictor:
    """An exported model, ready to predict.

    Args:
        path: the artifact; the name of a published checkpoint, such as ``"dfine-n-coco"``, which is fetched and
            exported the first time; or an artifact that is loaded already, whose ``backend``, ``threads`` and
            ``provider`` are then those it was loaded with.
        backend: name of the runtime; None takes the one for the suffix of ``path``.
        threads: threads of the runtime; None leaves it to the runtime.
        provider: what the runtime runs it on: an execution provider of ONNX Runtime such as ``"cuda"``, or a device of
            OpenVINO such as ``"gpu"``; None for the CPU. One that is not there is an error, and never replaced.
        score_thr: drop detections below; None takes the thresholds of the artifact, one for each class, where
            `efftasks test --write-thresholds` wrote them, and drops none otherwise. A mask takes a byte for each pixel
            of the image: all 100 of an image of 12 megapixels take 1.2 GB, and none is made of what is dropped.
        size: (height, width) of the network input, for artifacts with a dynamic size.
        exit_threshold: of a network with an early exit, the least score of an answer there that is taken, a number from
            0; None takes that of the artifact.

    Raises:
        UserError: the file cannot be run or is a top-down pose estimator, or the backend, threads, provider, size or
            one of the thresholds is not one it takes.
    """

    def __init__(
        self,
        path: str | Path | Artifact,
        backend: str | None = None,
        threads: int | None = None,
        score_thr: float | None = 0.0,
        size: tuple[int, int] | None = None,
        provider: str | None = None,
        exit_threshold: float | None = None,
    ) -> None:
        if score_thr is not None and not 0 <= score_thr <= 1:
            raise UserError(f"score_thr: got {score_thr}, expected a number in 0 to 1")
        self.session = path if isinstance(path, Artifact) else Artifact(path, backend, threads, provider)
        path, self.spec = self.session.path, self.session.spec
        if exit_threshold is not None:
            self.session.exit_threshold = exit_threshold
        if self.spec.task == TOP_DOWN:
            raise UserError(
                f"{path}: got a model for {TOP_DOWN}, expected one that finds objects: use TopDownPredictor"
            )
        names = self.session.outputs
        if not (names >= _OBJECTS or (not _OBJECTS & names and names & {"segmentation", "logits"})):
            raise UserError(
                f"{path}: outputs: got {', '.join(sorted(names))}, expected boxes, scores and labels, or segmentation, "
                "or logits"
            )
        by_class = self.spec.score_thresholds if score_thr is None else ()
        self._class_scores = np.array(by_class)
        self.score_thr = min(by_class, default=0.0) if score_thr is None else score_thr
        image_input = self.spec.input
        height, width = (image_input.height, image_input.width) if size is None else size
        self.size = (height, width)
        if self.size != (image_input.height, image_input.width) and not image_input.dynamic_size:
            raise UserError(f"size: got {self.size}, {path} takes {image_input.height} x {image_input.width} only")
        if any(side < 1 or side % image_input.divisor for side in self.size):
            raise UserError(f"size: got {self.size}, expected multiples of {image_input.divisor}")
        self._buffer = input_buffer(0, self.size, image_input)
        self._unwarned = threading.Lock()

    def __call__(
        self, images: Any, batch_size: int = 1, on_error: OnError = "raise", readers: int | None = None
    ) -> list[Prediction]:
        """Predict.

        Args:
            images: a path; the bytes of an image file; an array uint8 (H, W, 3) BGR, (H, W) grey or (H, W, 4) BGRA; a
                PIL image; several of these in a list, tuple or generator; or a folder or a glob pattern. Where the
                artifact states ``pixel_range``, arrays may have other numbers too, which it brings to 8 bits.
            batch_size: images at a time, where the artifact has a dynamic batch.
            on_error: ``skip`` leaves out what cannot be read, with a warning in the log ``efftasks``; or a function
                that is called with the error instead.
            readers: see :meth:`stream`; of no effect on a single batch, which is predicted without threads.

        Returns:
            A list with one :class:`Prediction` an image, of a single image as well; of an empty list an empty one.
            Boxes xyxy, masks, keypoints and label maps are in pixels of that image. Boxes are clipped to it, masks to
            their boxes; keypoints are not, they may lie outside.

        Raises:
            UserError: an image cannot be read, or something is no image.
        """
        skip, readers = _check(on_error, batch_size, readers)
        items = (Item(image, i) for i, image in enumerate(each_image(images)))
        parts = in_batches(items, self._step(batch_size))
        first = list(islice(parts, 2))
        if len(first) < 2:
            return [prediction for part in first for prediction in self._predict(part, skip)]
        return list(self._stream(chain(first, parts), readers, _Work(self, skip)))

    def stream(
        self,
        source: Any,
        batch_size: int = 1,
        on_error: OnError = "raise",
        readers: int | None = None,
        keep_pixels: bool = False,
    ) -> Iterator[Prediction]:
        """Predict one after another, with a bounded number of images in memory.

        Threads read, decode and resize ahead of the session, and the session runs ahead of the caller in a thread of
        its own. Predictions and their order are those of :meth:`__call__`. The threads end with the iterator: when it
        is exhausted, closed or dropped, or has raised. An iterable of the caller's is advanced in the caller's thread,
        some items ahead.

        Args:
            source: images as for :meth:`__call__`; the path of a video file; the index of a camera, also as a text; or
                the URL of a stream, such as ``rtsp://host/path``. See :class:`efftasks.runtime.video.Video`.
            batch_size: as for :meth:`__call__`.
            on_error: as for :meth:`__call__`, of images. Frames of a video that cannot be decoded are always skipped.
            readers: number of threads that read images; None takes one, on more than two processors two. A video has
                one.
            keep_pixels: whether predictions have the image as it was read in ``pixels``, so that ``draw`` need not read
                it again.

        Returns:
            An iterator of predictions. Of a frame, ``image`` is the frame, ``frame`` its number and ``name`` that of
            the video with the number.

        Raises:
            UserError: the source cannot be read, or an image of it, when its turn comes.
        """
        skip, readers = _check(on_error, batch_size, readers)
        return self._stream_source(source, self._step(batch_size), readers, _Work(self, skip, keep_pixels))

    def _step(self, batch_size: int) -> int:
        return batch_size if self.spec.input.dynamic_batch else 1

    def _stream_source(self, source: Any, step: int, readers: int, work: _Work) -> Iterator[Prediction]:
        with closing(open_source(source)) as opened:
            parts = in_batches(iter(opened), step)
            if not opened.video:
                yield from self._stream(parts, readers, work)
                return
            # The reader decodes the frames, too; of a camera it waits for them, and few are held.
            ahead = 2 if opened.live else _AHEAD
            with closing(run_ahead(repeat(parts), lambda rest: work.read(next(rest, [])), work.run, 1, ahead)) as done:
                for batch in done:
                    if not batch.images:
                        return
                    yield from self._predictions(batch)

    def _stream(self, parts: Iterator[list[Item]], readers: int, work: _Work) -> Iterator[Prediction]:
        with closing(run_ahead(parts, work.read, work.run, readers, _AHEAD + readers)) as done:
            for batch in done:
                _report(batch.errors, work.skip)
                yield from self._predictions(batch)

    def _warn_once(self, note: str) -> None:
        if self._unwarned.acquire(blocking=False):  # several readers may come here at a time
            _LOG.warning("%s", note)

    def preprocess(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Placement]]:
        """Images uint8 (H, W, 3) BGR -> network input, reused by the next call; and places.

        The input is float32 (N, 3, h, w), or (N, h, w, 3) where the artifact's layout is NHWC; or uint8 (N, h, w, 4).
        """
        if len(self._buffer) < len(images):
            self._buffer = input_buffer(len(images), self.size, self.spec.input)
        places = [self._write(buffer, image) for buffer, image in zip(self._buffer, images)]
        return self._buffer[: len(images)], places

    def _write(self, buffer: np.ndarray, image: np.ndarray) -> Placement:
        """Fit an image and write it into its place of the network input."""
        fitted, place = fit_image(image, self.spec.input, self.size)
        write_image(buffer, fitted, self.spec.input)
        return place

    def _predict(self, items: list[Item], skip: Skip | None) -> list[Prediction]:
        """Predict a batch in this thread, without copies of what the runtime gives."""
        with self.session.lock:
            if len(self._buffer) < len(items):
                self._buffer = input_buffer(len(items), self.size, self.spec.input)
            batch = self._read(items, self._buffer, skip is not None)
            batch.outputs = self.session.run_network(batch.inputs) if batch.images else {}
            predictions = self._predictions(batch)
        _report(batch.errors, skip)
        return predictions

    def _read(self, items: list[Item], buffer: np.ndarray, is_tolerant: bool, keep_pixels: bool = False) -> _Batch:
        """Load images and write them into the first places of a network input."""
        batch = _Batch(buffer)
        for item in items:
            try:
                loaded = item.load(self.spec.input.pixel_range, self._warn_once)
            except UserError as error:
                if not is_tolerant:
                    raise
                batch.errors.append(error)
                continue
            place = self._write(buffer[len(batch.images)], loaded.pixels)
            pixels = loaded.pixels if keep_pixels else None
            batch.images.append(_Seen(loaded.source, loaded.name, item.frame, place, pixels))
        return batch

    def _predictions(self, batch: _Batch) -> list[Prediction]:
        if not batch.images:
            return []
        outputs = self.session.decode(batch.outputs)
        return [self._prediction(image, i, outputs) for i, image in enumerate(batch.images)]

    def _prediction(self, image: _Seen, i: int, outputs: dict[str, np.ndarray]) -> Prediction:
        source, spec, place = image.source, self.spec, image.place
        fields: dict[str, Any] = dict(
            classes=spec.classes,
            category_ids=spec.category_ids,
            palette=spec.palette,
            name=image.name,
            pixel_range=spec.input.pixel_range,
            size=(place.height, place.width),
            frame=image.frame,
            pixels=image.pixels,
        )
        if EXITED in outputs:
            fields.update(exit_score=float(outputs[EXIT_SCORE][i]), exited=bool(outputs[EXITED][i]))
        if "scores" not in outputs:
            return Prediction.of_labels(source, self._label_map(i, outputs, place), **fields)
        scores = outputs["scores"][i]
        keep = slice(None, int((scores >= self.score_thr).sum()))  # sorted, best first
        boxes = to_image_pixels(outputs["boxes"][i][keep], place)
        prediction = Prediction(
            source,
            boxes,
            scores[keep].copy(),  # the runtime may use its memory again
            outputs["labels"][i][keep].astype(np.int64),  # a copy, too
            **fields,
            **self._more(i, keep, boxes, outputs, place),
            keypoint_names=spec.keypoints,
            skeleton=spec.skeleton,
            semantic_classes=spec.semantic_classes,
        )
        return prediction.filter(self._class_scores[prediction.labels]) if len(self._class_scores) else prediction

    def _more(
        self, i: int, keep: slice, boxes: np.ndarray, outputs: dict[str, np.ndarray], place: Placement
    ) -> dict[str, Any]:
        """What a model gives beside boxes: of the kept objects of an image, and of the image."""
        parts: dict[str, Any] = {}
        if "masks" in outputs:
            scale, size = (place.scale_x, place.scale_y), (place.height, place.width)
            parts["masks"] = masks_on_image(outputs["masks"][i][keep], boxes, scale, size)
        if "keypoints" in outputs:
            parts["keypoints"] = keypoints_to_image(outputs["keypoints"][i][keep], place)
        if "segmentation" in outputs:
            parts["segmentation"] = self._label_map(i, outputs, place)
        return parts

    def _label_map(self, i: int, outputs: dict[str, np.ndarray], place: Placement) -> np.ndarray:
        """Labels of one image in its own pixels."""
        if "segmentation" in outputs:
            labels = outputs["segmentation"][i]
        else:
            labels = outputs["logits"][i].argmax(0).astype(np.uint8)
        return labels_on_image(labels, place.covered, self.size, (place.height, place.width))


class _Work:
    """What the threads of a stream do, with network inputs that are used again.

    Args:
        predictor: whose stream it is.
        skip: called with the errors of images that cannot be read; None to raise them.
        keep_pixels: whether images are kept for drawing.
    """

    def __init__(self, predictor: Predictor, skip: Skip | None, keep_pixels: bool = False) -> None:
        self._predictor, self.skip, self._keep_pixels = predictor, skip, keep_pixels
        self._free: list[np.ndarray] = []

    def read(self, items: list[Item]) -> _Batch:
        """Make a batch ready, in a thread of the readers."""
        predictor = self._predictor
        try:
            buffer = self._free.pop()
        except IndexError:  # all are in use
            buffer = input_buffer(len(items), predictor.size, predictor.spec.input)
        return predictor._read(items, buffer, self.skip is not None, self._keep_pixels)

    def run(self, batch: _Batch) -> _Batch:
        """Run the session on a batch, in the thread of the session."""
        if batch.images:
            batch.outputs = self._predictor.session.run_apart(batch.inputs)
        self._free.append(batch.buffer)
        batch.buffer = batch.buffer[:0]
        return batch


def _check(on_error: OnError, batch_size: int, readers: int | None) -> tuple[Skip | None, int]:
    """What is called with an error, or None to raise it; and the number of readers."""
    if batch_size < 1:
        raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
    if readers is not None and readers < 1:
        raise UserError(f"readers: got {readers}, expected an integer from 1, or None")
    if readers is None:
        readers = 1 if (os.cpu_count() or 1) <= 2 else 2
    return error_handler(on_error), readers


def _report(errors: list[UserError], skip: Skip | None) -> None:
    """In the thread of the caller, and in the order of the input."""
    if skip is not None:
        for error in errors:
            skip(error)
