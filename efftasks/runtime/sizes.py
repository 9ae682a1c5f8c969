"""Predict each image at one of a few input sizes, as a rule chooses: no PyTorch, no OpenMMLab."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import LoadedImage, each_image, in_batches
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.names import short_names
from efftasks.runtime.pipeline import run_ahead
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.size_features import LEAST_SCORE
from efftasks.runtime.size_rules import CascadeRule, LearnedRule, Size, SizeRule, load_rule
from efftasks.runtime.sources import Images, Item, OnError, error_handler, open_source
from efftasks.structures.errors import UserError

__all__ = ["SizedPredictor", "open_sizes", "parse_sizes"]

_LOG = logging.getLogger("efftasks")
_AHEAD = 3  # batches that are read or predicted and not taken yet


class SizedPredictor:
    """Predictors of one network at several input sizes; a rule chooses the size for each image.

    It takes the place of a :class:`efftasks.runtime.predictor.Predictor`. Of a prediction, ``input_size`` is the size
    whose answer it is. Networks of several widths at one size are chosen among in the same way.

    Args:
        predictors: of the same classes, the smallest size first, of equal sizes the smallest file; from
            :func:`open_sizes`.
        rule: what chooses.
        score_thr: drop detections below.

    Attributes:
        sizes: (height, width) of each.
        names: of each for tables: its size, of several files at one size also the name of the file.

    Raises:
        UserError: there are fewer than two, sizes do not grow, or what they predict differs or has no boxes.
    """

    def __init__(self, predictors: Sequence[Predictor], rule: SizeRule, score_thr: float = 0.0) -> None:
        self.predictors, self.rule, self.score_thr = list(predictors), rule, score_thr
        self.sizes = [predictor.size for predictor in self.predictors]
        if len(self.sizes) < 2:
            raise UserError(f"--sizes: got {len(self.sizes)} of them, expected at least two to choose among")
        orders = [_order(predictor) for predictor in self.predictors]
        if orders != sorted(set(orders)):
            raise UserError(
                f"--sizes: got {_names(self.sizes)}, expected each larger than the one before, or another file with "
                "more weights"
            )
        self.names = self._distinct_names()
        self.spec = self.predictors[0].spec
        for predictor in self.predictors:
            spec = predictor.spec
            if (spec.task, spec.classes) != (self.spec.task, self.spec.classes):
                raise UserError(
                    f"{predictor.session.path}: got {spec.task} of {len(spec.classes)} classes, expected "
                    f"{self.spec.task} of the {len(self.spec.classes)} classes of {self.predictors[0].session.path}: "
                    "files of one network at several sizes"
                )
            if "boxes" not in predictor.session.outputs:
                raise UserError(f"{predictor.session.path}: got a model for {spec.task}, expected one that gives boxes")

    def __call__(
        self, images: Any, batch_size: int = 1, on_error: OnError = "raise", readers: int | None = None
    ) -> list[Prediction]:
        """Predict; arguments and result are those of :meth:`efftasks.runtime.predictor.Predictor.__call__`."""
        return list(self._stream(Images(list(each_image(images))), batch_size, on_error, readers))

    def stream(
        self,
        source: Any,
        batch_size: int = 1,
        on_error: OnError = "raise",
        readers: int | None = None,
        keep_pixels: bool = False,
    ) -> Iterator[Prediction]:
        """Predict one after another; as :meth:`efftasks.runtime.predictor.Predictor.stream`.

        Images are read ahead in threads, and predicted ahead of the caller in another one. The images of a batch that
        need the same size are predicted together.
        """
        return self._stream(open_source(source), batch_size, on_error, readers, keep_pixels)

    def _stream(
        self, source: Any, batch_size: int, on_error: OnError, readers: int | None, keep_pixels: bool = False
    ) -> Iterator[Prediction]:
        if batch_size < 1:
            raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
        if readers is not None and readers < 1:
            raise UserError(f"readers: got {readers}, expected an integer from 1, or None")
        skip = error_handler(on_error)
        read = _Reader(self.spec.input.pixel_range, skip is not None)
        return self._predictions(source, batch_size, read, readers or 1, skip, keep_pixels)

    def _predictions(
        self, source: Any, batch_size: int, read: _Reader, readers: int, skip: Any, keep_pixels: bool
    ) -> Iterator[Prediction]:
        with closing(source):
            ahead = 2 if source.live else _AHEAD + readers
            parts = in_batches(iter(source), batch_size)
            with closing(
                run_ahead(parts, read, lambda part: (part, self._answer(part.pixels)), readers, ahead)
            ) as done:
                for part, answers in done:
                    for error in part.errors:
                        skip(error)
                    for image, frame, answer in zip(part.images, part.frames, answers):
                        pixels = image.pixels if keep_pixels else None
                        yield replace(answer, image=image.source, name=image.name, frame=frame, pixels=pixels)

    def _distinct_names(self) -> list[str]:
        sizes = [f"{height}x{width}" for height, width in self.sizes]
        if len(set(sizes)) == len(sizes):
            return sizes
        names = short_names([str(path) for path in self.paths])
        return [f"{size} {names[str(path)]}" for size, path in zip(sizes, self.paths)]

    @property
    def paths(self) -> list[Path]:
        """The files: one of each size, in their order."""
        return [predictor.session.path for predictor in self.predictors]

    def predict_pixels(self, index: int, pixels: Sequence[np.ndarray]) -> list[Prediction]:
        """The answers of size ``index`` for images uint8 (H, W, 3) BGR, without a threshold on scores."""
        predictor = self.predictors[index]
        step = len(pixels) if predictor.spec.input.dynamic_batch else 1
        parts = [pixels[i : i + step] for i in range(0, len(pixels), step)]
        answers = [answer for part in parts for answer in predictor(list(part), batch_size=step)]
        return [replace(answer, input_size=predictor.size) for answer in answers]

    def _answer(self, pixels: Sequence[np.ndarray]) -> list[Prediction]:
        """The answer for each image, at the size that the rule chooses."""
        answers: dict[int, Prediction] = {}
        ahead = dict(enumerate(self.rule.first(picture) for picture in pixels))  # image -> size to predict it at
        while ahead:
            now = min(ahead.values())
            images = [i for i, size in ahead.items() if size == now]
            for i, answer in zip(images, self.predict_pixels(now, [pixels[i] for i in images])):
                answers[i] = answer
                ahead[i] = self.rule.next(now, answer, self.sizes)
                if ahead[i] == now:
                    del ahead[i]
        return [answers[i].filter(self.score_thr) for i in range(len(pixels))]


class _Part:
    """Images of a batch that were read, and the errors of those that were not."""

    def __init__(self) -> None:
        self.images: list[LoadedImage] = []
        self.frames: list[int | None] = []
        self.errors: list[UserError] = []

    @property
    def pixels(self) -> list[np.ndarray]:
        return [image.pixels for image in self.images]


class _Reader:
    """Reads batches, in the threads of the readers."""

    def __init__(self, pixel_range: Any, is_tolerant: bool) -> None:
        self._pixel_range, self._is_tolerant = pixel_range, is_tolerant
        self._warned: set[str] = set()

    def __call__(self, items: list[Item]) -> _Part:
        part = _Part()
        for item in items:
            try:
                image = item.load(self._pixel_range, self._warn)
            except UserError as error:
                if not self._is_tolerant:
                    raise
                part.errors.append(error)
                continue
            part.images.append(image)
            part.frames.append(item.frame)
        return part

    def _warn(self, note: str) -> None:
        if not self._warned:
            _LOG.warning("%s", note)
        self._warned.add(note)


def parse_sizes(texts: Sequence[str]) -> list[Size | Path]:
    """``192``, ``480x640`` (height x width) or the path of a file -> sizes and paths.

    Raises:
        UserError: it is none of these.
    """
    return [_parse_size(text) for text in texts]


def _parse_size(text: str) -> Size | Path:
    sides = text.lower().split("x")
    if len(sides) <= 2 and all(side.isascii() and side.isdecimal() and int(side) > 0 for side in sides):
        return int(sides[0]), int(sides[-1])
    if not Path(text).is_file():
        raise UserError(
            f"--sizes: got {text!r}, expected a side in pixels such as 320, HxW such as 480x640, or another exported "
            "file of the same network"
        )
    return Path(text)


def open_sizes(
    path: str | Path,
    sizes: Sequence[Size | Path],
    rule: str | Path | None = None,
    threshold: float | None = None,
    backend: str | None = None,
    threads: int | None = None,
    provider: str | None = None,
    score_thr: float = 0.0,
) -> SizedPredictor:
    """Load a network at several sizes.

    Args:
        path: the artifact. Sizes in pixels are its own, and need a dynamic size; where there are paths, it is one of
            the sizes.
        sizes: (height, width), or paths of artifacts of the same network; from :func:`parse_sizes`.
        rule: file of a rule that was fitted; None for :class:`~efftasks.runtime.size_rules.CascadeRule`.
        threshold: of the rule, in [0, 1]; None for its own.
        backend: as for :class:`efftasks.runtime.predictor.Predictor`.
        threads: as there.
        provider: as there.
        score_thr: as there.

    Raises:
        UserError: a size that the file does not take, files of several networks, or a rule that was fitted for others.
    """
    if not 0 <= score_thr <= 1:
        raise UserError(f"score_thr: got {score_thr}, expected a number in 0 to 1")
    inner = min(score_thr, LEAST_SCORE)  # rules look at detections from there
    first = Artifact(path, backend, threads, provider)
    files = [size for size in sizes if isinstance(size, Path)]
    predictors = [_at_size(first, size, inner) for size in sizes if not isinstance(size, Path)]
    if files:
        others = [Artifact(file, backend, threads, provider) for file in files]
        predictors += [Predictor(artifact, score_thr=inner) for artifact in (first, *others)]
    predictors.sort(key=_order)
    chosen = _rule(rule, threshold)
    sized = SizedPredictor(predictors, chosen, score_thr)
    if isinstance(chosen, LearnedRule):
        chosen.check(sized.sizes, sized.paths, str(rule))
    return sized


def _rule(path: str | Path | None, threshold: float | None) -> CascadeRule | LearnedRule:
    rule = CascadeRule() if path is None else load_rule(path)
    return rule if threshold is None else replace(rule, threshold=threshold)


def _at_size(artifact: Artifact, size: Size, score_thr: float) -> Predictor:
    image_input = artifact.spec.input
    if not image_input.dynamic_size and size != (image_input.height, image_input.width):
        raise UserError(
            f"--sizes: got {size[0]}x{size[1]}, but {artifact.path} takes {image_input.height}x{image_input.width} "
            "only: export it with --dynamic-size, or give files of other sizes"
        )
    if any(side % image_input.divisor for side in size):
        raise UserError(f"--sizes: got {size[0]}x{size[1]}, expected multiples of {image_input.divisor}")
    return Predictor(artifact, score_thr=score_thr, size=size)


def _order(predictor: Predictor) -> tuple[int, int]:
    """Pixels of the input, and bytes of the files: a wider network has more of these."""
    height, width = predictor.size
    return height * width, sum(part.stat().st_size for part in predictor.session.parts)


def _names(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes)
