"""Pre-labels in YOLO form: boxes, polygons, or boxes with keypoints. The format has no place for scores."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.polygons import joined_ring, mask_outlines
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.labels.objects import LabeledObject, labeled_objects, place_image
from efftasks.structures.keypoints import mirrored_names

__all__ = ["YoloLabels"]

_LOG = logging.getLogger("efftasks")


class YoloLabels:
    """``images/train/``, ``labels/train/`` and ``data.yaml``.

    Of a model with masks an object is a polygon; parts and holes of its mask are joined into one ring. Of a model with
    keypoints it is a box with keypoints.

    Args:
        folder: of the data set, which need not exist.
        score_thr: minimum score, of objects and of each of their keypoints.
    """

    def __init__(self, folder: Path, score_thr: float) -> None:
        self._folder, self._score_thr = folder, score_thr
        self._has_names = False

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the label file of an image, and the image; the first one also writes ``data.yaml``."""
        objects = labeled_objects(prediction, self._score_thr)
        assert prediction.size is not None
        if not self._has_names:
            self._write_names(prediction)
        lines = [_line(entry, prediction.size) for entry in objects]  # first: an image without them has no objects
        stem = Path(place_image(prediction, self._folder / "images" / "train")).stem
        (self._folder / "labels" / "train" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        """Nothing to complete."""

    def _write_names(self, prediction: Prediction) -> None:
        (self._folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in _metadata(prediction))
        (self._folder / "data.yaml").write_text(text, encoding="utf-8")
        self._has_names = True
        if prediction.masks is not None and prediction.keypoints is not None:
            _LOG.warning("%s: YOLO has keypoints or masks, not both: the keypoints are written", self._folder)


def _metadata(prediction: Prediction) -> Iterator[str]:
    """The lines of ``data.yaml``. There is no ``val``: which images judge a training is the user's choice."""
    yield "train: images/train"
    yield "names:"
    yield from (f"  {i}: {json.dumps(name)}" for i, name in enumerate(prediction.classes))
    if prediction.keypoints is not None:
        points = prediction.keypoints.shape[1]
        yield f"kpt_shape: [{points}, 3]"
        mirrored = list(range(points))
        for a, b in mirrored_names(prediction.keypoint_names):
            mirrored[a], mirrored[b] = b, a
        yield f"flip_idx: {mirrored}"
        if prediction.keypoint_names:
            yield "kpt_names:"
            names = json.dumps(list(prediction.keypoint_names))
            yield from (f"  {i}: {names}" for i in range(len(prediction.classes)))


def _line(entry: LabeledObject, size: tuple[int, int]) -> str:
    sides = np.array(size[::-1], np.float64)
    if entry.mask is not None and entry.keypoints is None:
        ring = joined_ring(mask_outlines(entry.mask)) / sides
        return _text(entry.label, ring.ravel())
    low, high = np.reshape(entry.box, (2, 2)) / sides
    numbers: list[NDArray[np.float64]] = [(low + high) / 2, high - low]
    if entry.keypoints is not None:
        places = entry.keypoints[:, :2] / sides
        numbers.append(np.column_stack([places, entry.keypoints[:, 2]]).ravel())
    return _text(entry.label, np.concatenate(numbers))


def _text(label: int, numbers: Iterable[float]) -> str:
    return f"{label} {' '.join(f'{number:.7g}' for number in numbers)}\n"
