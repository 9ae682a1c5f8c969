"""Predict with an exported file: no PyTorch, no OpenMMLab."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from efftasks.runtime.backends.onnxruntime import OnnxRuntimeSession
from efftasks.runtime.preprocess import Placement, fit_image, normalise_into, to_image_pixels
from efftasks.runtime.video import read_frames
from efftasks.structures.errors import UserError
from efftasks.structures.prediction import Prediction
from efftasks.structures.spec import ArtifactSpec

__all__ = ["IMAGE_SUFFIXES", "Predictor", "Session", "find_images"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_BACKENDS = {".onnx": OnnxRuntimeSession}

Image = str | Path | np.ndarray


class Session(Protocol):
    """A loaded artifact."""

    spec: ArtifactSpec

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input float32 (N, 3, H, W) -> output name -> array."""
        ...


def find_images(source: str | Path) -> list[str]:
    """Paths of the images that a file, folder or glob names, sorted.

    Raises:
        UserError: there are none.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    elif path.is_file():
        found = [str(path)]
    else:
        found = sorted(p for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
    if not found:
        raise UserError(f"{source}: no image found, expected an image, a folder of images or a pattern")
    return found


class Predictor:
    """An exported model, ready to predict.

    Args:
        path: the artifact (``.onnx``).
        threads: threads of the runtime; None leaves it to the runtime.
        score_thr: drop detections below.
        size: (height, width) of the network input, for artifacts with a dynamic size.

    Raises:
        UserError: the file cannot be run, or the size is not one it takes.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        score_thr: float = 0.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        suffix = Path(path).suffix.lower()
        if suffix not in _BACKENDS:
            raise UserError(
                f"{path}: no runtime for {suffix or 'a file without suffix'}, allowed are {', '.join(_BACKENDS)}"
            )
        self.session: Session = _BACKENDS[suffix](path, threads)
        self.spec = self.session.spec
        self.score_thr = score_thr
        facts = self.spec.input
        self.size = size or (facts.height, facts.width)
        if self.size != (facts.height, facts.width) and not facts.dynamic_size:
            raise UserError(f"size: got {self.size}, {path} takes {facts.height} x {facts.width} only")
        if any(side % facts.divisor for side in self.size):
            raise UserError(f"size: got {self.size}, expected multiples of {facts.divisor}")
        self._buffer = np.empty((0, 3, *self.size), np.float32)

    def __call__(self, images: Image | Sequence[Image], batch_size: int = 1) -> list[Prediction]:
        """Predict.

        Args:
            images: an array uint8 (H, W, 3) BGR, a path, a folder, a glob pattern, or a list of arrays and paths.
            batch_size: images at a time, where the artifact has a dynamic batch.

        Returns:
            One :class:`Prediction` an image, boxes xyxy in pixels of that image.

        Raises:
            UserError: an image cannot be read, or an array is no image.
        """
        if isinstance(images, np.ndarray):
            images = [images]
        elif isinstance(images, (str, Path)):
            images = find_images(images)
        step = max(1, batch_size) if self.spec.input.dynamic_batch else 1
        predictions: list[Prediction] = []
        for start in range(0, len(images), step):
            predictions.extend(self._predict(images[start : start + step]))
        return predictions

    def stream(self, video: str | Path) -> Iterator[Prediction]:
        """Predict frame by frame; ``image`` of each prediction is the frame."""
        for frame in read_frames(video):
            yield self._predict([frame])[0]

    def _predict(self, images: Sequence[Image]) -> list[Prediction]:
        inputs, places = self.preprocess([_load(image) for image in images])
        outputs = self.session.run(inputs)
        return [self._prediction(image, i, outputs, place) for i, (image, place) in enumerate(zip(images, places))]

    def preprocess(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Placement]]:
        """Images uint8 (H, W, 3) BGR -> network input float32 (N, 3, h, w), reused by the next call; and places."""
        if len(self._buffer) < len(images):
            self._buffer = np.empty((len(images), 3, *self.size), np.float32)
        places = []
        for buffer, image in zip(self._buffer, images):
            fitted, place = fit_image(image, self.spec.input, self.size)
            normalise_into(buffer, fitted, self.spec.input)
            places.append(place)
        return self._buffer[: len(images)], places

    def _prediction(self, image: Image, i: int, outputs: dict[str, np.ndarray], place: Placement) -> Prediction:
        scores = outputs["scores"][i]
        keep = slice(None, int((scores >= self.score_thr).sum()))  # sorted, best first
        return Prediction(
            image=image if isinstance(image, np.ndarray) else str(image),
            boxes=to_image_pixels(outputs["boxes"][i][keep], place),
            scores=scores[keep],
            labels=outputs["labels"][i][keep],
            classes=self.spec.classes,
            category_ids=self.spec.category_ids,
        )


def _load(image: Image) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"image: got {image.dtype} {image.shape}, expected uint8 (H, W, 3) BGR")
        return image
    try:
        data = np.fromfile(image, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{image}: the image is missing or cannot be read") from error
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if decoded is None:
        raise UserError(f"{image}: the image cannot be decoded")
    return decoded
