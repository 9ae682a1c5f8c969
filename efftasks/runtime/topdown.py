"""Keypoints in the boxes of a detector, with an exported top-down estimator: no PyTorch, no OpenMMLab."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from efftasks.imaging.crops import TOP_DOWN, crop_matrix, cut_crop, invert_affine, warp_points
from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import load_image
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.preprocess import input_buffer, write_image
from efftasks.structures.errors import UserError

__all__ = ["TopDownPredictor"]

_LOG = logging.getLogger("efftasks")


class TopDownPredictor:
    """An exported pose estimator, ready to look into boxes.

    Args:
        path: the artifact, or one that is loaded already; ``backend``, ``threads`` and ``provider`` are then those it
            was loaded with.
        backend: name of the runtime; None takes the one for the suffix of ``path``.
        threads: threads of the runtime; None leaves it to the runtime.
        batch_size: crops at a time, where the artifact has a dynamic batch.
        provider: as for :class:`efftasks.runtime.predictor.Predictor`.

    Raises:
        UserError: the file cannot be run, or is none of a top-down estimator.
    """

    def __init__(
        self,
        path: str | Path | Artifact,
        threads: int | None = None,
        batch_size: int = 8,
        backend: str | None = None,
        provider: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
        self.session = path if isinstance(path, Artifact) else Artifact(path, backend, threads, provider)
        path, self.spec = self.session.path, self.session.spec
        if self.spec.task != TOP_DOWN:
            raise UserError(f"{path}: got a file for {self.spec.task}, expected one for {TOP_DOWN}")
        self.num_keypoints = int(self.spec.outputs[0].shape[1])
        self.size = (self.spec.input.height, self.spec.input.width)
        self.padding = self.spec.input.crop_padding
        self.step = batch_size if self.spec.input.dynamic_batch else 1
        self._warned = False
        self._buffer = input_buffer(self.step, self.size, self.spec.input)

    def __call__(self, image: Any, boxes: ArrayLike, labels: Sequence[int] | None = None) -> Prediction:
        """Predict.

        Args:
            image: one image, as :class:`efftasks.runtime.predictor.Predictor` takes them.
            boxes: (K, 4) xyxy in pixels of the image.
            labels: of the boxes, indices into the classes; None for 0.

        Returns:
            A row for each box, in the order of the boxes: ``keypoints`` (K, P, 3) in pixels of the image, and as its
            score the mean of its keypoints'.

        Raises:
            UserError: the image cannot be read, or the boxes are none.
        """
        source, pixels, _ = load_image(image, 0, self.spec.input.pixel_range, self._warn_once)
        checked_boxes = _checked(boxes)
        classes = np.zeros(len(checked_boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
        if classes.shape != (len(checked_boxes),):
            raise UserError(f"labels: got {len(classes)} for {len(checked_boxes)} boxes, expected one each")
        keypoints = np.empty((len(checked_boxes), self.num_keypoints, 3), np.float32)
        for i in range(0, len(checked_boxes), self.step):
            keypoints[i : i + self.step] = self._keypoints(pixels, checked_boxes[i : i + self.step])
        return Prediction(
            source,
            checked_boxes,
            keypoints[..., 2].mean(1),
            classes,
            classes=self.spec.classes,
            category_ids=self.spec.category_ids,
            keypoints=keypoints,
            keypoint_names=self.spec.keypoints,
            skeleton=self.spec.skeleton,
            pixel_range=self.spec.input.pixel_range,
        )

    def _warn_once(self, note: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s", note)

    def _keypoints(self, pixels: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keypoints (k, P, 3) in pixels of the image, of as many boxes as go at a time."""
        image_input = self.spec.input
        matrices = [crop_matrix(box, self.size, self.padding) for box in boxes]
        for buffer, matrix in zip(self._buffer, matrices):
            write_image(buffer, cut_crop(pixels, matrix, self.size, image_input.pad_value), image_input)
        keypoints = self.session.run(self._buffer[: len(boxes)])["keypoints"]
        return np.stack([warp_points(points, invert_affine(matrix)) for points, matrix in zip(keypoints, matrices)])


def _checked(boxes: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(boxes, np.float32)
    array = array.reshape(-1, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise UserError(f"boxes: got an array of shape {array.shape}, expected (K, 4) finite numbers: xyxy")
    bad = (array[:, 2:] <= array[:, :2]).any(1)
    if bad.any():
        raise UserError(f"boxes: got {array[bad][0].tolist()}, expected xyxy with x1 < x2 and y1 < y2")
    return array
