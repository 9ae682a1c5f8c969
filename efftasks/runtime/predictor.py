"""Predict with an exported file: no PyTorch, no OpenMMLab."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from efftasks.imaging.crops import TOP_DOWN
from efftasks.imaging.label_maps import labels_on_image
from efftasks.imaging.masks import masks_on_image
from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import LoadedImage, each_image, find_images, in_batches, load_image
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.preprocess import (
    Placement,
    fit_image,
    input_buffer,
    keypoints_to_image,
    to_image_pixels,
    write_image,
)
from efftasks.runtime.video import read_frames
from efftasks.structures.errors import UserError

__all__ = ["Predictor", "find_images"]

_LOG = logging.getLogger("efftasks")


_OBJECTS = {"boxes", "scores", "labels"}


class Predictor:
    """An exported model, ready to predict.

    Args:
        path: the artifact, or one that is loaded already; ``backend`` and ``threads`` are then those it was loaded
            with.
        backend: name of the runtime; None takes the one for the suffix of ``path``.
        threads: threads of the runtime; None leaves it to the runtime.
        score_thr: drop detections below. A mask takes a byte for each pixel of the image: all 100 of an image of 12
            megapixels take 1.2 GB, and none is made of what is dropped.
        size: (height, width) of the network input, for artifacts with a dynamic size.

    Raises:
        UserError: the file cannot be run or is a top-down pose estimator, or the backend, threads, threshold or size is
            not one it takes.
    """

    def __init__(
        self,
        path: str | Path | Artifact,
        backend: str | None = None,
        threads: int | None = None,
        score_thr: float = 0.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        if not 0 <= score_thr <= 1:
            raise UserError(f"score_thr: got {score_thr}, expected a number in 0 to 1")
        self.session = path if isinstance(path, Artifact) else Artifact(path, backend, threads)
        path, self.spec = self.session.path, self.session.spec
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
        self.score_thr = score_thr
        image_input = self.spec.input
        height, width = (image_input.height, image_input.width) if size is None else size
        self.size = (height, width)
        if self.size != (image_input.height, image_input.width) and not image_input.dynamic_size:
            raise UserError(f"size: got {self.size}, {path} takes {image_input.height} x {image_input.width} only")
        if any(side < 1 or side % image_input.divisor for side in self.size):
            raise UserError(f"size: got {self.size}, expected multiples of {image_input.divisor}")
        self._buffer = input_buffer(0, self.size, image_input)
        self._warned = False

    def __call__(
        self, images: Any, batch_size: int = 1, on_error: Literal["raise", "skip"] = "raise"
    ) -> list[Prediction]:
        """Predict.

        Args:
            images: a path; the bytes of an image file; an array uint8 (H, W, 3) BGR, (H, W) grey or (H, W, 4) BGRA; a
                PIL image; several of these in a list, tuple or generator; or a folder or a glob pattern. Where the
                artifact states ``pixel_range``, arrays may have other numbers too, which it brings to 8 bits.
            batch_size: images at a time, where the artifact has a dynamic batch.
            on_error: ``skip`` leaves out what cannot be read, with a warning in the log ``efftasks``.

        Returns:
            A list with one :class:`Prediction` an image, of a single image as well; of an empty list an empty one.
            Boxes xyxy, masks, keypoints and label maps are in pixels of that image. Boxes are clipped to it, masks to
            their boxes; keypoints are not, they may lie outside.

        Raises:
            UserError: an image cannot be read, or something is no image.
        """
        if on_error not in ("raise", "skip"):
            raise UserError(f"on_error: got {on_error!r}, expected 'raise' or 'skip'")
        if batch_size < 1:
            raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
        step = batch_size if self.spec.input.dynamic_batch else 1
        predictions: list[Prediction] = []
        for part in in_batches(enumerate(each_image(images)), step):
            read = [self._load(image, i, on_error) for i, image in part]
            predictions.extend(self._predict([loaded for loaded in read if loaded is not None]))
        return predictions

    def stream(self, video: str | Path) -> Iterator[Prediction]:
        """Predict frame by frame; ``image`` of each prediction is the frame, ``name`` the video's with a number.

        Raises:
            UserError: the video cannot be read.
        """
        for i, frame in enumerate(read_frames(video)):
            yield self._predict([LoadedImage(frame, frame, f"{Path(video).stem}_{i:06d}")])[0]

    def _warn_once(self, note: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s", note)

    def _load(self, image: Any, i: int, on_error: str) -> LoadedImage | None:
        try:
            return load_image(image, i, self.spec.input.pixel_range, self._warn_once)
        except UserError as error:
            if on_error == "raise":
                raise
            _LOG.warning("skipped: %s", error)
            return None

    def _predict(self, images: Sequence[LoadedImage]) -> list[Prediction]:
        if not images:
            return []
        inputs, places = self.preprocess([image.pixels for image in images])
        outputs = self.session.run(inputs)
        return [self._prediction(image, i, outputs, place) for i, (image, place) in enumerate(zip(images, places))]

    def preprocess(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Placement]]:
        """Images uint8 (H, W, 3) BGR -> network input, reused by the next call; and places.

        The input is float32 (N, 3, h, w), or (N, h, w, 3) where the artifact's layout is NHWC; or uint8 (N, h, w, 4).
        """
        if len(self._buffer) < len(images):
            self._buffer = input_buffer(len(images), self.size, self.spec.input)
        places = []
        for buffer, image in zip(self._buffer, images):
            fitted, place = fit_image(image, self.spec.input, self.size)
            write_image(buffer, fitted, self.spec.input)
            places.append(place)
        return self._buffer[: len(images)], places

    def _prediction(self, image: LoadedImage, i: int, outputs: dict[str, np.ndarray], place: Placement) -> Prediction:
        source, spec = image.source, self.spec
        fields: dict[str, Any] = dict(
            classes=spec.classes,
            category_ids=spec.category_ids,
            palette=spec.palette,
            name=image.name,
            pixel_range=spec.input.pixel_range,
        )
        if "scores" not in outputs:
            return Prediction.of_labels(source, self._label_map(i, outputs, place), **fields)
        scores = outputs["scores"][i]
        keep = slice(None, int((scores >= self.score_thr).sum()))  # sorted, best first
        boxes = to_image_pixels(outputs["boxes"][i][keep], place)
        return Prediction(
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
